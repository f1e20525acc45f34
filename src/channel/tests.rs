//! The rules of protocol.md sections 7 and 9, and a model to compare with.
