//! Gradients of trigonometric and hyperbolic functions and of their inverses.

use super::{Row, Rule};
use crate::ir::ValueId;

pub(super) const RULES: &[Row] = &[
    ("Sin", "", |r| {
        let (dy, x) = (r.dy()?, r.x(0)?);
        let d = r.op("Cos", &[x]);
        Ok(vec![Some(r.op("Mul", &[dy, d]))])
    }),
    ("Cos", "", |r| {
        let (dy, x) = (r.dy()?, r.x(0)?);
        let sin = r.op("Sin", &[x]);
        let d = r.op("Neg", &[sin]);
        Ok(vec![Some(r.op("Mul", &[dy, d]))])
    }),
    ("Tan", "", |r| {
        // dy · (1 + y²)
        let (dy, y) = (r.dy()?, r.y(0)?);
        let (square, one) = (r.op("Mul", &[y, y]), r.c(1.0, y));
        let d = r.op("Add", &[square, one]);
        Ok(vec![Some(r.op("Mul", &[dy, d]))])
    }),
    ("Asin", "infinite at −1 and 1", |r| {
        let (dy, d) = (r.dy()?, one_minus_square(r)?);
        let root = r.op("Sqrt", &[d]);
        Ok(vec![Some(r.op("Div", &[dy, root]))])
    }),
    ("Acos", "infinite at −1 and 1", |r| {
        let (dy, d) = (r.dy()?, one_minus_square(r)?);
        let root = r.op("Sqrt", &[d]);
        let g = r.op("Div", &[dy, root]);
        Ok(vec![Some(r.op("Neg", &[g]))])
    }),
    ("Atan", "", |r| {
        let (dy, x) = (r.dy()?, r.x(0)?);
        let (square, one) = (r.op("Mul", &[x, x]), r.c(1.0, x));
        let d = r.op("Add", &[square, one]);
        Ok(vec![Some(r.op("Div", &[dy, d]))])
    }),
    ("Sinh", "", |r| {
        let (dy, x) = (r.dy()?, r.x(0)?);
        let d = r.op("Cosh", &[x]);
        Ok(vec![Some(r.op("Mul", &[dy, d]))])
    }),
    ("Cosh", "", |r| {
        let (dy, x) = (r.dy()?, r.x(0)?);
        let d = r.op("Sinh", &[x]);
        Ok(vec![Some(r.op("Mul", &[dy, d]))])
    }),
    ("Asinh", "", |r| {
        let (dy, x) = (r.dy()?, r.x(0)?);
        let (square, one) = (r.op("Mul", &[x, x]), r.c(1.0, x));
        let d = r.op("Add", &[square, one]);
        let root = r.op("Sqrt", &[d]);
        Ok(vec![Some(r.op("Div", &[dy, root]))])
    }),
    ("Acosh", "infinite at 1", |r| {
        // dy / √((x − 1)(x + 1)): nothing cancels near 1.
        let (dy, x) = (r.dy()?, r.x(0)?);
        let one = r.c(1.0, x);
        let (less, more) = (r.op("Sub", &[x, one]), r.op("Add", &[x, one]));
        let d = r.op("Mul", &[less, more]);
        let root = r.op("Sqrt", &[d]);
        Ok(vec![Some(r.op("Div", &[dy, root]))])
    }),
    ("Atanh", "infinite at −1 and 1", |r| {
        let (dy, d) = (r.dy()?, one_minus_square(r)?);
        Ok(vec![Some(r.op("Div", &[dy, d]))])
    }),
];

/// `1 − x²` as `(1 − x)(1 + x)`: nothing cancels near the ends.
fn one_minus_square(r: &mut Rule<'_, '_>) -> Result<ValueId, String> {
    let x = r.x(0)?;
    let one = r.c(1.0, x);
    let (less, more) = (r.op("Sub", &[one, x]), r.op("Add", &[one, x]));
    Ok(r.op("Mul", &[less, more]))
}
