//! Graft's own kernels, operators of the domain `graft`.

use ort::operator::OperatorDomain;

pub(crate) fn domain() -> ort::Result<OperatorDomain> {
    OperatorDomain::new("graft")
}
