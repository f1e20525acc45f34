//! What a client sends.

use tidegate::websocket::{
    frame::{self, Data, OpCode},
    mask,
};

/// What the Centrifuge protocol's frames are.
pub const TEXT: OpCode = OpCode::Data(Data::Text);

/// The key of all masks.
pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame: text, whole, masked.
pub fn client_frame(payload: &[u8]) -> Vec<u8> {
    const MASK_BIT: u8 = 0x80;

    let mut bytes = Vec::new();
    frame::write(&mut bytes, TEXT, payload);
    let header_bytes = bytes.len() - payload.len();
    bytes[1] |= MASK_BIT;
    bytes.splice(header_bytes..header_bytes, MASK);
    mask::apply(&mut bytes[header_bytes + MASK.len()..], MASK);
    bytes
}
