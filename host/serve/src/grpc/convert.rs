//! Calls and answers: from the wire's messages to [`crate::v2`]'s and back.

use super::wire::infer_parameter::ParameterChoice;
use super::wire::model_infer_request::InferInputTensor;
use super::wire::model_infer_response::InferOutputTensor;
use super::wire::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};
use crate::v2::parameters::{check_tensor, timeout};
use crate::v2::{Data, DataType, Fault, Input, Kind, Request, Response};

/// What is asked, and the caller's name for the call. The elements of all inputs come either as bytes or in fields of their
/// types.
pub fn request(call: ModelInferRequest) -> Result<(Request, String), Fault> {
    let raw = call.raw_input_contents;
    if !raw.is_empty() && raw.len() != call.inputs.len() {
        let (inputs, raw) = (call.inputs.len(), raw.len());
        return Err(Fault::invalid(format!(
            "{inputs} inputs with {raw} raw contents; a call has one for each"
        )));
    }
    let mut inputs = Vec::with_capacity(call.inputs.len());
    for (place, tensor) in call.inputs.into_iter().enumerate() {
        check_tensor(&tensor.name, |p| tensor.parameters.contains_key(p))?;
        inputs.push(match raw.get(place) {
            Some(_) if tensor.contents.is_some() => {
                let name = tensor.name;
                return Err(Fault::invalid(format!("input '{name}' has both contents and raw contents")));
            }
            Some(raw) => Input::of_raw(&tensor.name, &tensor.datatype, &tensor.shape, raw)?,
            None => typed(tensor)?,
        });
    }
    for output in &call.outputs {
        check_tensor(&output.name, |p| output.parameters.contains_key(p))?;
    }
    let request = Request {
        model: call.model_name,
        inputs,
        outputs: call.outputs.into_iter().map(|o| o.name).collect(),
        timeout: timeout(call.parameters.get("timeout").map(whole))?,
    };
    Ok((request, call.id))
}

/// An input whose elements are in the field of its type, and in no other.
fn typed(tensor: InferInputTensor) -> Result<Input, Fault> {
    let InferInputTensor { name, datatype, shape, contents, .. } = tensor;
    let mut contents = contents.unwrap_or_default();
    let data = match DataType::of(&datatype, &name)? {
        DataType::Bytes => Data::Bytes(std::mem::take(&mut contents.bytes_contents)),
        DataType::Int64 => Data::Ints(std::mem::take(&mut contents.int64_contents)),
        DataType::Int32 => {
            Data::Ints(std::mem::take(&mut contents.int_contents).into_iter().map(i64::from).collect())
        }
    };
    if contents != InferTensorContents::default() {
        return Err(Fault::invalid(format!(
            "input '{name}' of type {datatype} has contents of another type"
        )));
    }
    Input::new(&name, &shape, data)
}

/// A parameter as a whole number, if it is one.
fn whole(parameter: &InferParameter) -> Option<u64> {
    match parameter.parameter_choice {
        Some(ParameterChoice::Int64Param(n)) => u64::try_from(n).ok(),
        Some(ParameterChoice::Uint64Param(n)) => Some(n),
        _ => None,
    }
}

/// The answer, with its elements as bytes.
pub fn response(answer: Response, id: String) -> Result<ModelInferResponse, Fault> {
    let mut response = ModelInferResponse {
        model_name: answer.model,
        model_version: answer.version.to_string(),
        id,
        ..ModelInferResponse::default()
    };
    for output in answer.outputs {
        let raw = output.to_raw().map_err(|e| Fault::new(Kind::Internal, e))?;
        response.raw_output_contents.push(raw);
        response.outputs.push(InferOutputTensor {
            name: output.name.into(),
            datatype: output.datatype.into(),
            shape: vec![i64::try_from(output.rows()).unwrap_or(i64::MAX)],
            ..InferOutputTensor::default()
        });
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(tensor: InferInputTensor, raw: &[&[u8]]) -> Result<Input, Fault> {
        let raw_input_contents = raw.iter().map(|r| r.to_vec()).collect();
        let call = ModelInferRequest { inputs: vec![tensor], raw_input_contents, ..Default::default() };
        Ok(request(call)?.0.inputs.remove(0))
    }

    fn ids(contents: Option<InferTensorContents>) -> InferInputTensor {
        InferInputTensor {
            name: "input_ids".into(),
            datatype: "INT64".into(),
            shape: vec![1, 1],
            contents,
            ..Default::default()
        }
    }

    #[test]
    fn elements_come_as_bytes_or_in_the_field_of_their_type() {
        let contents = InferTensorContents { int64_contents: vec![7], ..Default::default() };
        let other = InferTensorContents { int_contents: vec![7], ..Default::default() };
        assert_eq!(call(ids(Some(contents.clone())), &[]).unwrap().data, Data::Ints(vec![7]));
        assert_eq!(call(ids(None), &[&7i64.to_le_bytes()]).unwrap().data, Data::Ints(vec![7]));
        for (tensor, raw, why) in [
            (ids(Some(contents)), &[&[0; 8][..]][..], "both"),
            (ids(Some(other)), &[], "another type"),
            (ids(None), &[], "0 elements"),
            (ids(None), &[&[0; 8], &[]], "one for each"),
            (ids(None), &[&[0; 7]], "7 bytes"),
        ] {
            let fault = call(tensor, raw).unwrap_err();
            assert!(fault.message.contains(why), "{fault:?}");
        }
    }
}
