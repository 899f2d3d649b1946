//! Running a session: checked inputs that are lent, not copied, and outputs that are viewed, not copied.

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::Arc;

use graft_graph::Tensor;
use ort::AsPointer;

use crate::error::{Doing, Result, RuntimeError};
use crate::lent::Lent;
use crate::outputs::Outputs;
use crate::session::{Port, Session};
use crate::value::{OrtValue, View};

/// Names of inputs and outputs, looked up once for many runs; see [`Session::plan`].
#[derive(Debug, Clone)]
pub struct Plan {
    session: u64,
    inputs: Vec<Named>,
    outputs: Vec<Named>,
}

/// An input or output of a session: its place there, and its name as ONNX Runtime is told it.
type Named = (usize, CString);

/// A caller's buffer that an output is written into.
#[derive(Debug)]
pub struct Target<'a> {
    /// The shape that the output will have.
    pub shape: &'a [usize],
    /// Room for exactly as many elements.
    pub data: &'a mut [f32],
}

impl Session {
    /// Runs the graph. Inputs are named in any order; outputs come back in the order asked for.
    ///
    /// # Errors
    /// [`RuntimeError::UnknownName`], [`RuntimeError::MissingInput`], [`RuntimeError::InputMismatch`] before anything
    /// is run; [`RuntimeError::Ort`] with ONNX Runtime's words, operator and node name included;
    /// [`RuntimeError::Cancelled`].
    pub fn run(&mut self, inputs: &[(&str, &Tensor)], outputs: &[&str]) -> Result<Outputs> {
        let names: Vec<&str> = inputs.iter().map(|(n, _)| *n).collect();
        let views: Vec<View<'_>> = inputs.iter().map(|(_, t)| View::from(*t)).collect();
        let plan = self.plan(&names, outputs)?;
        self.run_planned(&plan, &views)
    }

    /// Looks up names once, for a loop that calls [`run_planned`](Self::run_planned).
    ///
    /// # Errors
    /// [`RuntimeError::UnknownName`] for a name that the graph lacks, [`RuntimeError::BadSetting`] for one given twice,
    /// [`RuntimeError::MissingInput`] for an input that is left out.
    pub fn plan(&self, inputs: &[&str], outputs: &[&str]) -> Result<Plan> {
        let inputs = self.find("input", &self.inputs, inputs)?;
        if let Some(left_out) = (0..self.inputs.len()).find(|i| !inputs.iter().any(|(k, _)| k == i)) {
            let port = &self.inputs[left_out];
            return Err(RuntimeError::MissingInput {
                session: self.name.clone(),
                name: port.name.clone(),
                expected: port.to_string(),
            });
        }
        let outputs = self.find("output", &self.outputs, outputs)?;
        Ok(Plan { session: self.id, inputs, outputs })
    }

    /// Runs the graph on inputs in the plan's order: what a training loop calls, with parameters as views of its own
    /// buffers.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_planned(&mut self, plan: &Plan, inputs: &[View<'_>]) -> Result<Outputs> {
        let lent = self.lend_all(plan, inputs)?;
        let mut raw = vec![ptr::null_mut(); plan.outputs.len()];
        let ran = self.call(plan, &lent, &mut raw);
        // Taken over before the error is looked at, so that nothing leaks.
        let values: Vec<Option<OrtValue>> = raw.into_iter().map(OrtValue::own).collect();
        ran?;
        let mut outputs = Outputs::new(Arc::clone(&self.keep));
        for ((index, _), value) in plan.outputs.iter().zip(values) {
            let name = &self.outputs[*index].name;
            let value = value.ok_or_else(|| RuntimeError::Ort {
                doing: format!("running {}", self.name),
                message: format!("there is no value for output `{name}`"),
            })?;
            outputs.push(name, value, &lent)?;
        }
        Ok(outputs)
    }

    /// Runs the graph and writes the outputs, all of f32, into the caller's buffers.
    ///
    /// # Errors
    /// As [`run`](Self::run), and [`RuntimeError::BadSetting`] when targets are not as many as the plan's outputs, a
    /// buffer does not fill its shape, or an output is an input under the same name.
    pub fn run_into(&mut self, plan: &Plan, inputs: &[View<'_>], targets: &mut [Target<'_>]) -> Result<()> {
        let lent = self.lend_all(plan, inputs)?;
        self.check_targets(plan, targets)?;
        let mut values = Vec::with_capacity(targets.len());
        for t in targets.iter_mut() {
            let len = size_of_val(t.data);
            let data = if t.data.is_empty() {
                ptr::NonNull::<f32>::dangling().as_ptr().cast()
            } else {
                t.data.as_mut_ptr().cast()
            };
            // SAFETY: the buffer is borrowed mutably for the whole call, is aligned (it is of f32) and the value is
            // released before this function returns.
            let value = unsafe {
                OrtValue::over(&self.runtime.host_memory, graft_graph::DType::F32, t.shape, data, len)
            }?;
            values.push(value);
        }
        let mut raw: Vec<_> = values.iter().map(OrtValue::ptr).collect();
        self.call(plan, &lent, &mut raw)
    }

    /// Runs the graph and writes its outputs into these values, wherever they lie.
    pub(crate) fn run_onto(&mut self, plan: &Plan, inputs: &[View<'_>], outputs: &[OrtValue]) -> Result<()> {
        let lent = self.lend_all(plan, inputs)?;
        let mut raw: Vec<_> = outputs.iter().map(OrtValue::ptr).collect();
        self.call(plan, &lent, &mut raw)
    }

    fn check_targets(&self, plan: &Plan, targets: &[Target<'_>]) -> Result<()> {
        let bad = |setting: String, reason: String| Err(RuntimeError::BadSetting { setting, reason });
        if targets.len() != plan.outputs.len() {
            let reason = format!("{} buffers for {} outputs", targets.len(), plan.outputs.len());
            return bad(format!("targets of session {}", self.name), reason);
        }
        for ((index, _), t) in plan.outputs.iter().zip(targets) {
            let port = &self.outputs[*index];
            let setting = || format!("session {}: target of output `{}`", self.name, port.name);
            let count = t.shape.iter().try_fold(1usize, |a, d| a.checked_mul(*d));
            if count != Some(t.data.len()) {
                return bad(
                    setting(),
                    format!("{} elements do not fill the shape {:?}", t.data.len(), t.shape),
                );
            }
            if port.dtype != Some(graft_graph::DType::F32) || !fits(port, t.shape) {
                return bad(setting(), format!("the output is {port}, not f32 {:?}", t.shape));
            }
            if self.inputs.iter().any(|i| i.name == port.name) {
                return bad(setting(), "it is an input of the graph; read it there".into());
            }
        }
        Ok(())
    }

    fn find(&self, kind: &'static str, ports: &[Port], names: &[&str]) -> Result<Vec<Named>> {
        let mut found: Vec<Named> = Vec::with_capacity(names.len());
        for name in names {
            // One with a zero byte could not be told to ONNX Runtime.
            let index = ports.iter().position(|p| p.name == **name).zip(CString::new(*name).ok());
            let (index, c_name) = index.ok_or_else(|| RuntimeError::UnknownName {
                session: self.name.clone(),
                kind,
                name: (*name).to_owned(),
                known: ports.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", "),
            })?;
            if found.iter().any(|(k, _)| *k == index) {
                return Err(RuntimeError::BadSetting {
                    setting: format!("session {}: {kind} `{name}`", self.name),
                    reason: "it is given twice".into(),
                });
            }
            found.push((index, c_name));
        }
        Ok(found)
    }

    fn lend_all(&mut self, plan: &Plan, inputs: &[View<'_>]) -> Result<Vec<Lent>> {
        if plan.session != self.id {
            return Err(RuntimeError::BadSetting {
                setting: format!("plan for session {}", self.name),
                reason: "it was made by another session; make one by Session::plan of this one".into(),
            });
        }
        if inputs.len() != plan.inputs.len() {
            return Err(RuntimeError::BadSetting {
                setting: format!("inputs of session {}", self.name),
                reason: format!("{} values for {} planned inputs", inputs.len(), plan.inputs.len()),
            });
        }
        let mut lent = Vec::with_capacity(inputs.len());
        for ((index, _), view) in plan.inputs.iter().zip(inputs) {
            let port = &self.inputs[*index];
            if port.dtype != Some(view.dtype()) || !fits(port, view.shape()) {
                return Err(RuntimeError::InputMismatch {
                    session: self.name.clone(),
                    name: port.name.clone(),
                    expected: port.to_string(),
                    found: format!("{} {:?}", view.dtype(), view.shape()),
                });
            }
            lent.push(self.lending[*index].lend(self.runtime, view)?);
        }
        Ok(lent)
    }

    fn call(&mut self, plan: &Plan, lent: &[Lent], outputs: &mut [*mut ort::sys::OrtValue]) -> Result<()> {
        let pointers = |of: &[Named]| of.iter().map(|(_, n)| n.as_ptr()).collect::<Vec<*const c_char>>();
        let (input_names, output_names) = (pointers(&plan.inputs), pointers(&plan.outputs));
        let values: Vec<*const ort::sys::OrtValue> = lent.iter().map(Lent::ptr).collect();
        let options = self.cancel.as_ref().map_or(ptr::null(), |c| c.run_options());
        // SAFETY: names are NUL-terminated strings of this session (`find` lets no others into a plan), arrays and
        // lengths belong together, every value is alive, and `&mut self` keeps runs from overlapping.
        let status = unsafe {
            (ort::api().Run)(
                self.keep.inner.ptr().cast_mut(),
                options,
                input_names.as_ptr(),
                values.as_ptr(),
                values.len(),
                output_names.as_ptr(),
                output_names.len(),
                outputs.as_mut_ptr(),
            )
        };
        // SAFETY: the status comes from the call above and is consumed once.
        unsafe { ort::Error::result_from_status(status) }.doing(|| format!("running {}", self.name))
    }
}

/// Whether `shape` is one that the port takes.
fn fits(port: &Port, shape: &[usize]) -> bool {
    // ONNX Runtime gives no dimensions both for a scalar and for a value of unknown rank, and checks those itself.
    port.dims.is_empty()
        || (port.dims.len() == shape.len()
            && port.dims.iter().zip(shape).all(|(p, s)| p.is_none_or(|p| p == *s)))
}
