//! The way from a plugin into the host: decodes, guards, dispatches to a [`GraphHost`].

use std::cell::{Cell, RefCell};
use std::ffi::c_void;

use abi_stable::std_types::RSlice;
use graft_plugin_api::abi::{HostCallbacks, Reply};
use graft_plugin_api::guard::guarded;
use graft_plugin_api::wire::{self, Message, host_op};
use graft_plugin_api::{Code, Error, ParamSpec, Result, Tensor};

use crate::host::GraphHost;

/// Largest message that a plugin may send.
const MAX_REQUEST: usize = 1 << 30;

struct Context<'a> {
    host: RefCell<&'a mut dyn GraphHost>,
    mistake: Cell<bool>,
}

/// What a plugin writes. Refused is what is wrong on any base; what a base has or lacks is asked for by other operations.
const WRITTEN: [u32; 15] = [
    host_op::EMIT,
    host_op::CONSTANT,
    host_op::FACT,
    host_op::PARAM,
    host_op::SETTING,
    host_op::STATE,
    host_op::SET_STATE,
    host_op::STOP_GRADIENT,
    host_op::NOISE,
    host_op::INPUT,
    host_op::STORE_AS,
    host_op::REPLACE_OUTPUT,
    host_op::REPLACE_INPUT,
    host_op::LEARNING_RATE,
    host_op::UNTRAINED_PARAM,
];

/// Runs `call` with callbacks that reach `host`; they are valid until it returns. The second value is true where the host
/// refused something that the plugin wrote.
pub(crate) fn with_callbacks<T>(
    host: &mut dyn GraphHost,
    call: impl FnOnce(&HostCallbacks) -> T,
) -> (T, bool) {
    let context = Context { host: RefCell::new(host), mistake: Cell::new(false) };
    let callbacks = HostCallbacks { context: (&raw const context).cast(), call: host_call };
    let answer = call(&callbacks);
    (answer, context.mistake.get())
}

extern "C" fn host_call(context: *const c_void, op: u32, request: RSlice<'_, u8>) -> Reply {
    let answer = guarded(|| {
        // SAFETY: the pointer is the one that `with_callbacks` made, whose context outlives the call that we are in;
        // the boundary hands it back unchanged and callbacks are made on the calling thread only.
        let context = unsafe { &*context.cast::<Context<'_>>() };
        let mut host = context.host.try_borrow_mut().map_err(|_| {
            Error::new(Code::REFUSED, "a host callback was made from within a host callback".to_owned())
        })?;
        if request.len() > MAX_REQUEST {
            return Err(Error::new(
                Code::LIMIT,
                format!("a message of {} bytes is too large", request.len()),
            ));
        }
        dispatch(*host, op, request.as_slice()).inspect_err(|e| {
            if e.code == Code::REFUSED && WRITTEN.contains(&op) {
                context.mistake.set(true);
            }
        })
    });
    let answer = answer.unwrap_or_else(|p| {
        let message = format!("the host panicked in `{}`: {}", host_op::name(op), p.message);
        Err(Error { place: p.place, ..Error::new(Code::PANIC, message) })
    });
    match answer {
        Ok(bytes) => Reply::ROk(bytes.into()),
        Err(e) => Reply::RErr(wire::Error::from(e).encode_to_vec().into()),
    }
}

fn dispatch(host: &mut dyn GraphHost, op: u32, request: &[u8]) -> Result<Vec<u8>> {
    Ok(match op {
        host_op::EMIT => values(host.emit(read(op, request)?)?),
        host_op::CONSTANT => value(host.constant(Tensor::from(read::<wire::Tensor>(op, request)?))?),
        host_op::FACT => wire::Fact::from(host.fact(single(op, request)?)?).encode_to_vec(),
        host_op::PARAM | host_op::UNTRAINED_PARAM => {
            value(host.param(ParamSpec::try_from(read::<wire::Param>(op, request)?)?)?)
        }
        host_op::SETTING => value(host.setting(read(op, request)?)?),
        host_op::STATE => value(host.state(read(op, request)?)?),
        host_op::SET_STATE => {
            let next: wire::Named = read(op, request)?;
            host.set_state(&next.name, next.value)?;
            Vec::new()
        }
        host_op::STOP_GRADIENT => {
            let asked: wire::StopGradient = read(op, request)?;
            value(host.stop_gradient(single(op, request)?, &asked.place)?)
        }
        host_op::NOISE => values(host.noise(read(op, request)?)?.into_iter().collect()),
        host_op::INPUT => value(host.input(read(op, request)?)?),
        host_op::TRAIN_BASE => value(host.train_base(&read::<wire::Named>(op, request)?.name)?),
        host_op::INITIALIZER => value(host.initializer(&read::<wire::Named>(op, request)?.name)?),
        host_op::SITES => wire::Sites { sites: host.sites()? }.encode_to_vec(),
        host_op::REPLACE_OUTPUT => {
            let r: wire::Replace = read(op, request)?;
            host.replace_output(r.site, r.value)?;
            Vec::new()
        }
        host_op::REPLACE_INPUT => {
            let r: wire::Replace = read(op, request)?;
            host.replace_input(r.site, r.value)?;
            Vec::new()
        }
        host_op::REPLACE_ATTENTION => {
            host.replace_attention(read(op, request)?)?;
            Vec::new()
        }
        host_op::VIRTUAL_TOKENS => {
            host.virtual_tokens(read(op, request)?)?;
            Vec::new()
        }
        host_op::PUT_VIRTUAL => value(host.put_virtual(read(op, request)?)?),
        host_op::WORDS => wire::Sites { sites: host.words()?.into_iter().collect() }.encode_to_vec(),
        host_op::STORE_AS => {
            let stored: wire::Named = read(op, request)?;
            host.store_as(&stored.name, stored.value)?;
            Vec::new()
        }
        host_op::CALL_SITE => {
            let r: wire::Replace = read(op, request)?;
            value(host.call_site(r.site, r.value)?)
        }
        host_op::SOLVE_HEAD => {
            host.solve_head(read(op, request)?)?;
            Vec::new()
        }
        host_op::SOFTMAX_HEAD => {
            host.softmax_head(read(op, request)?)?;
            Vec::new()
        }
        host_op::LEARNING_RATE => {
            host.learning_rate(read(op, request)?)?;
            Vec::new()
        }
        host_op::HIDDEN => value(host.hidden()?),
        host_op::POOLED => values(host.pooled()?.into_iter().collect()),
        host_op::LOGITS => values(host.logits()?.into_iter().collect()),
        host_op::MODEL_INPUT => {
            values(host.model_input(&read::<wire::Named>(op, request)?.name)?.into_iter().collect())
        }
        host_op::TRAINING => wire::Flag { value: host.training()? }.encode_to_vec(),
        host_op::CANCELLED => wire::Flag { value: host.cancelled() }.encode_to_vec(),
        host_op::MATCHED => {
            host.matched(read(op, request)?)?;
            Vec::new()
        }
        host_op::LOG => {
            let line: wire::Log = read(op, request)?;
            host.log(line.level, &line.message);
            Vec::new()
        }
        host_op::RANDOM => {
            let r: wire::Random = read(op, request)?;
            let numbers = host.random(r.seed, &r.name, r.count)?;
            wire::Tensor::from(Tensor::f32s(&r.name, &[numbers.len()], &numbers)).encode_to_vec()
        }
        _ => return Err(Error::new(Code::UNSUPPORTED, format!("this host has no operation {op}"))),
    })
}

fn read<M: Message + Default>(op: u32, bytes: &[u8]) -> Result<M> {
    M::decode(bytes).map_err(|e| {
        Error::new(Code::MALFORMED, format!("the request `{}` cannot be read: {e}", host_op::name(op)))
    })
}

fn single(op: u32, bytes: &[u8]) -> Result<u64> {
    Ok(read::<wire::Values>(op, bytes)?.ids.first().copied().unwrap_or(0))
}

fn values(ids: Vec<u64>) -> Vec<u8> {
    wire::Values { ids }.encode_to_vec()
}

fn value(id: u64) -> Vec<u8> {
    values(vec![id])
}
