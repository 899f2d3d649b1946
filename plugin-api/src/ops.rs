//! Building blocks over [`Graph::emit`]: standard ONNX operators only.

use crate::graph::attr;
use crate::{DType, Distribution, Graph, Result, Tensor, Value};

impl Graph<'_> {
    /// An f32 scalar.
    ///
    /// # Errors
    /// As [`Graph::constant`].
    #[track_caller]
    pub fn scalar(&self, value: f32) -> Result<Value> {
        self.constant(Tensor::f32s("", &[], &[value]))
    }

    /// An i64 vector, such as axes or a shape.
    ///
    /// # Errors
    /// As [`Graph::constant`].
    #[track_caller]
    pub fn ints(&self, values: &[i64]) -> Result<Value> {
        self.constant(Tensor::i64s("", &[values.len()], values))
    }

    /// `x · wᵀ + bias` with `w` as `[out, in]` and `bias` as `[out]`.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn linear(&self, x: Value, w: Value, bias: Option<Value>) -> Result<Value> {
        let y = self.matmul(x, self.transpose(w, &[1, 0])?)?;
        // Not within a closure, which would pass for the author's line.
        match bias {
            Some(b) => self.add(y, b),
            None => Ok(y),
        }
    }

    /// Matrix product over the last two axes.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn matmul(&self, a: Value, b: Value) -> Result<Value> {
        self.emit("MatMul", &[a, b], &[])
    }

    /// Sum with broadcasting.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn add(&self, a: Value, b: Value) -> Result<Value> {
        self.emit("Add", &[a, b], &[])
    }

    /// Difference with broadcasting.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn sub(&self, a: Value, b: Value) -> Result<Value> {
        self.emit("Sub", &[a, b], &[])
    }

    /// Product with broadcasting.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn mul(&self, a: Value, b: Value) -> Result<Value> {
        self.emit("Mul", &[a, b], &[])
    }

    /// Quotient with broadcasting.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn div(&self, a: Value, b: Value) -> Result<Value> {
        self.emit("Div", &[a, b], &[])
    }

    /// The larger of the two, with broadcasting.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn max(&self, a: Value, b: Value) -> Result<Value> {
        self.emit("Max", &[a, b], &[])
    }

    /// `−x`.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn neg(&self, x: Value) -> Result<Value> {
        self.emit("Neg", &[x], &[])
    }

    /// `max(x, 0)`.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn relu(&self, x: Value) -> Result<Value> {
        self.emit("Relu", &[x], &[])
    }

    /// Hyperbolic tangent.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn tanh(&self, x: Value) -> Result<Value> {
        self.emit("Tanh", &[x], &[])
    }

    /// Gelu in its exact form, with the error function.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn gelu(&self, x: Value) -> Result<Value> {
        self.emit("Gelu", &[x], &[])
    }

    /// Axes in another order.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn transpose(&self, x: Value, order: &[i64]) -> Result<Value> {
        self.emit("Transpose", &[x], &[attr("perm", order)])
    }

    /// Another shape; −1 is computed, 0 is kept.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn reshape(&self, x: Value, shape: &[i64]) -> Result<Value> {
        self.emit("Reshape", &[x, self.ints(shape)?], &[])
    }

    /// New axes of extent 1.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn unsqueeze(&self, x: Value, axes: &[i64]) -> Result<Value> {
        self.emit("Unsqueeze", &[x, self.ints(axes)?], &[])
    }

    /// Axes of extent 1 go.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn squeeze(&self, x: Value, axes: &[i64]) -> Result<Value> {
        self.emit("Squeeze", &[x, self.ints(axes)?], &[])
    }

    /// Another element type.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn cast(&self, x: Value, to: DType) -> Result<Value> {
        self.emit("Cast", &[x], &[attr("to", i64::from(to.0))])
    }

    /// Where the two are equal, as bool.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn equal(&self, a: Value, b: Value) -> Result<Value> {
        self.emit("Equal", &[a, b], &[])
    }

    /// `a` where the condition holds, else `b`.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn select_where(&self, condition: Value, a: Value, b: Value) -> Result<Value> {
        self.emit("Where", &[condition, a, b], &[])
    }

    /// Rows of `x` along `axis` by index.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn gather(&self, x: Value, indices: Value, axis: i64) -> Result<Value> {
        self.emit("Gather", &[x, indices], &[attr("axis", axis)])
    }

    /// Softmax along `axis`.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn softmax(&self, x: Value, axis: i64) -> Result<Value> {
        self.emit("Softmax", &[x], &[attr("axis", axis)])
    }

    /// Logarithm of the softmax along `axis`.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn log_softmax(&self, x: Value, axis: i64) -> Result<Value> {
        self.emit("LogSoftmax", &[x], &[attr("axis", axis)])
    }

    /// Sum over axes; none means all.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn reduce_sum(&self, x: Value, axes: &[i64], keep: bool) -> Result<Value> {
        self.reduce("ReduceSum", x, axes, keep)
    }

    /// Mean over axes; none means all.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn reduce_mean(&self, x: Value, axes: &[i64], keep: bool) -> Result<Value> {
        self.reduce("ReduceMean", x, axes, keep)
    }

    #[track_caller]
    fn reduce(&self, op: &str, x: Value, axes: &[i64], keep: bool) -> Result<Value> {
        let keep = [attr("keepdims", i64::from(keep))];
        if axes.is_empty() {
            return self.emit(op, &[x], &keep);
        }
        self.emit(op, &[x, self.ints(axes)?], &keep)
    }

    /// Layer normalisation over the last axis.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn layer_norm(&self, x: Value, scale: Value, bias: Value, epsilon: f32) -> Result<Value> {
        self.emit("LayerNormalization", &[x, scale, bias], &[attr("axis", -1i64), attr("epsilon", epsilon)])
    }

    /// f32 one-hot rows: integer `labels` `[batch]` → `[batch, classes]`.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn one_hot(&self, labels: Value, classes: usize) -> Result<Value> {
        let range: Vec<i64> = (0..classes as i64).collect();
        let range = self.constant(Tensor::i64s("", &[1, classes], &range))?;
        self.cast(self.equal(self.unsqueeze(labels, &[1])?, range)?, DType::F32)
    }

    /// Inverted dropout: zero with probability `p`, else `x / (1 − p)`. The mask is noise of the host, so nothing is
    /// random in the graph; in evaluation, and for `p = 0`, it is `x` itself.
    ///
    /// # Errors
    /// As [`Graph::emit`]; `CONFIG` when `p` is not in `[0, 1)`.
    #[track_caller]
    pub fn dropout(&self, x: Value, p: f32, name: &str) -> Result<Value> {
        if p == 0.0 {
            return Ok(x);
        }
        if !(0.0..1.0).contains(&p) {
            return crate::fail!(CONFIG, "a dropout of {p} is not in [0, 1)");
        }
        let Some(shape) = self.fact(x)?.shape else {
            return crate::fail!(REFUSED, "dropout `{name}` needs a value whose rank is known");
        };
        let keep = 1.0 - p;
        match self.noise(name, &shape, Distribution::Bernoulli { keep, value: 1.0 / keep })? {
            Some(mask) => self.mul(x, mask),
            None => Ok(x),
        }
    }
}
