//! The engine side of Graft's plugin boundary: finding, checking, loading and isolating plugins.
