//! The names of PEFT's types.

use serde::{Deserialize, Serialize};

macro_rules! types {
    ($($variant:ident = $name:literal),* $(,)?) => {
        /// The adapter types that PEFT 0.21 knows (`peft_type` in `adapter_config.json`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[expect(missing_docs, reason = "the names are PEFT's")]
        #[non_exhaustive]
        pub enum PeftType { $(#[serde(rename = $name)] $variant),* }

        impl PeftType {
            /// The type of a name as PEFT writes it.
            pub fn of(name: &str) -> Option<PeftType> {
                match name { $($name => Some(PeftType::$variant),)* _ => None }
            }

            /// The name as PEFT writes it.
            pub fn name(self) -> &'static str {
                match self { $(PeftType::$variant => $name),* }
            }
        }
    };
}

types! {
    AdaLora = "ADALORA", AdamSs = "ADAMSS", AdaptionPrompt = "ADAPTION_PROMPT", Beft = "BEFT", Boft = "BOFT",
    Bone = "BONE", C3a = "C3A", Cartridge = "CARTRIDGE", Cpt = "CPT", Deft = "DEFT", DeLora = "DELORA",
    FourierFt = "FOURIERFT", Frod = "FROD", GLora = "GLORA", GraLora = "GRALORA", Hira = "HIRA", Hra = "HRA",
    Ia3 = "IA3", Lily = "LILY", LnTuning = "LN_TUNING", LoHa = "LOHA", LoKr = "LOKR", Lora = "LORA",
    Miss = "MISS", MultitaskPromptTuning = "MULTITASK_PROMPT_TUNING", Oft = "OFT", Osf = "OSF",
    PTuning = "P_TUNING", Peanut = "PEANUT", Poly = "POLY", PrefixTuning = "PREFIX_TUNING",
    PromptTuning = "PROMPT_TUNING", Psoft = "PSOFT", Pvera = "PVERA", RandLora = "RANDLORA", Road = "ROAD",
    Shadow = "SHADOW", Shira = "SHIRA", SuperTuning = "SUPERTUNING", TinyLora = "TINYLORA",
    TrainableTokens = "TRAINABLE_TOKENS", UniLora = "UNILORA", VbLora = "VBLORA", Vera = "VERA",
    WaveFt = "WAVEFT", XLora = "XLORA",
}
