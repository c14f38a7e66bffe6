//! stub
use super::OpEntry;
pub(super) const ENTRIES: &[OpEntry] = &[];
