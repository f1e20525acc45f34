//! What is done to a server, and what of it is measured. One scenario per file; [`stage`] and
//! [`delivery`] are what they share.

pub mod churn;
pub mod delivery;
pub mod heartbeat;
pub mod idle;
pub mod publishing;
pub mod ramp;
pub mod recovery;
pub mod stage;
pub mod storm;
