//! A plugin whose only job is to misbehave, in the way that its config says. The host must survive all of it.

use std::sync::Mutex;

use graft_plugin_api::*;

config! {
    /// A method that misbehaves.
    pub struct Misbehaving {
        /// In which way.
        mode: String = "panic".to_owned(),
    }
}

/// A value of an earlier call, kept against the rules.
static KEPT: Mutex<Option<Value>> = Mutex::new(None);

impl Method for Misbehaving {
    const ID: &'static str = "misbehaving";
    const SUMMARY: &'static str = "misbehaves while it is applied";

    fn apply(&self, g: &Graph<'_>) -> Result<()> {
        let sites = g.sites()?;
        let Some(site) = sites.iter().find(|s| s.kind == SiteKind::LINEAR) else {
            return fail!(NO_SITE, "there is no linear site");
        };
        let x = site.output()?;
        match self.mode.as_str() {
            "panic" => panic!("I was told to panic"),
            "panic-at-site" => g.each(std::slice::from_ref(site), |_| panic!("no luck with this one")),
            "panic-with-a-number" => std::panic::panic_any(7),
            "error" => fail!("I do not want to"),
            "unknown-operator" => g.emit("MatMull", &[x, x], &[]).map(drop),
            "random-operator" => g.emit("RandomNormalLike", &[x], &[]).map(drop),
            "shapes-that-do-not-fit" => {
                g.matmul(x, g.constant(Tensor::f32s("", &[5, 2], &[0.0; 10]))?).map(drop)
            }
            "types-that-do-not-fit" => g.add(x, g.ints(&[1])?).map(drop),
            "wrong-shape" => g.replace_output(site, g.reduce_sum(x, &[-1], true)?),
            "wrong-type" => g.replace_output(site, g.cast(x, DType::F64)?),
            "own-reader" => {
                let next = sites.iter().filter(|s| s.kind == SiteKind::LINEAR).nth(1).unwrap_or(site);
                g.replace_output(site, g.mul(next.output()?, next.output()?)?)
            }
            "endless" => loop {
                g.neg(x)?;
            },
            "many-outputs" => g.emit_many("", "Split", &[Some(x)], &[], u32::MAX).map(drop),
            "huge-parameter" => g.param(ParamSpec::new("huge", &[u64::MAX, 2])).map(drop),
            "huge-constant" => {
                let shape = vec![usize::MAX, usize::MAX];
                g.constant(Tensor { name: String::new(), dtype: DType::F32, shape, data: vec![0; 8] })
                    .map(drop)
            }
            "short-constant" => g.constant(Tensor::f32s("", &[3], &[1.0])).map(drop),
            "unknown-type" => g.cast(x, DType(77)).map(drop),
            "keep" => {
                *KEPT.lock().unwrap_or_else(|e| e.into_inner()) = Some(x);
                Ok(())
            }
            "use-kept" => {
                let kept = KEPT.lock().unwrap_or_else(|e| e.into_inner()).take();
                let Some(kept) = kept else { return fail!("nothing was kept") };
                g.neg(kept).map(drop)
            }
            "rate-of-no-parameter" => g.learning_rate(x, LearningRate::Times(2.0)),
            "two-settings" => g.setting("a", 1.0).and_then(|_| g.setting("a", 2.0)).map(drop),
            "absent-initializer" => g.train_base("no.such.bias").map(drop),
            "unknown-callback" => g.call::<wire::Flag>(9_999, &()).map(drop),
            "garbled-request" => {
                g.call::<wire::Values>(wire::host_op::EMIT, &wire::Flag { value: true }).map(drop)
            }
            "too-many-random-numbers" => g.random(0, "", usize::MAX).map(drop),
            "logs" => {
                g.log(Level::Info, "still here");
                Ok(())
            }
            other => fail!(CONFIG, "option `mode`: I cannot do `{other}`"),
        }
    }
}

config! {
    /// An objective that misbehaves.
    pub struct MisbehavingObjective {
        /// In which way.
        mode: String = "panic-collating".to_owned(),
    }
}

impl Objective for MisbehavingObjective {
    const ID: &'static str = "misbehaving-objective";
    const SUMMARY: &'static str = "misbehaves while it collates, builds, judges or answers";

    fn check(&self) -> Result<()> {
        if self.mode == "panic-checking" {
            panic!("this config is too much for me");
        }
        Ok(())
    }

    fn fields(&self) -> Vec<Field> {
        let text = Field::new("text", FieldKind::TEXT, "anything");
        vec![text, Field::new("label", FieldKind::LABEL, "anything")]
    }

    fn prepare(self, _: &Summary) -> Result<Self> {
        if self.mode == "panic-preparing" { panic!("unprepared") } else { Ok(self) }
    }

    fn collate(&self, _: &Host<'_>, rows: &[Row], _: u64) -> Result<Vec<Tensor>> {
        match self.mode.as_str() {
            "panic-collating" => panic!("row {} is too much", rows.len()),
            "short-tensor" => Ok(vec![Tensor::i64s("labels", &[rows.len() + 1], &vec![0; rows.len()])]),
            _ => Ok(vec![Tensor::i64s("labels", &[rows.len()], &vec![0; rows.len()])]),
        }
    }

    fn build(&self, g: &Graph<'_>) -> Result<Built> {
        let hidden = g.hidden()?;
        let loss = match self.mode.as_str() {
            "no-loss" => None,
            "loss-for-each-row" => Some(g.reduce_mean(hidden, &[1, 2], false)?),
            "panic-building" => panic!("unbuilt"),
            _ if !g.training()? => None,
            _ => Some(g.reduce_mean(hidden, &[], false)?),
        };
        Ok(Built { loss, outputs: vec![("logits".to_owned(), hidden)] })
    }

    fn metrics(&self, tensors: &[Tensor]) -> Result<Vec<Metric>> {
        let none: Vec<Metric> = Vec::new();
        if self.mode == "panic-judging" { Ok(vec![none[tensors.len()].clone()]) } else { Ok(none) }
    }

    fn decode(&self, _: &Host<'_>, _: &[Tensor]) -> Result<Vec<Json>> {
        if self.mode == "panic-answering" { panic!("speechless") } else { Ok(vec![Json::Null]) }
    }
}

export_plugin! { id: "misbehaving", methods: [Misbehaving], objectives: [MisbehavingObjective] }
