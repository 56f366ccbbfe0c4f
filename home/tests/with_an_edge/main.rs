//! The home's library with everything real but the edge: the other end of the tunnel is played here, so
//! that it can lie, stand still, break off, or hand over what was damaged.

mod edge;

mod exchanges;
mod spool;
