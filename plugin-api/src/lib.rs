//! The stable plugin boundary of Graft and the author's SDK over it.
