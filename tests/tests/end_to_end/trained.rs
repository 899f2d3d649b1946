//! Models that were really trained, on real data: molecules on an ALBERT of one shared layer, pictures on a ResNet-20.

use std::path::{Path, PathBuf};
use std::process::Command;

use graft_tests::fixture::House;
use graft_tests::shared;

use super::{ends, number};

/// The shared data and a house.
fn there() -> Option<(PathBuf, House)> {
    let shared = shared()?.canonicalize().expect("a folder");
    Some((shared, House::new()?))
}

/// The first `rows` molecules of BBBP, and options that train on them.
fn molecules(shared: &Path, house: &House, rows: usize) -> String {
    let all = std::fs::read_to_string(shared.join("data/molecule/BBBP.csv")).unwrap();
    // Permeable molecules come first in the file, others last: every seventh line is a mixture.
    let lines: Vec<&str> = all.lines().collect();
    let picked = lines[1..].iter().step_by(lines.len() / rows);
    house.write(
        "bbbp.csv",
        std::iter::once(&lines[0]).chain(picked).map(|l| format!("{l}\n")).collect::<String>(),
    );
    let base = shared.join("models/albert_smiles/converted_encoder.onnx");
    format!(
        "train --base {} --objective classification --data bbbp.csv --text smiles --label p_np --eval-split 0.2 \
         --batch-size 16 --threads 2 --json",
        base.display()
    )
}

#[test]
fn a_linear_probe_on_an_albert_tells_which_molecules_pass() {
    let Some((shared, house)) = there() else { return };
    let line = molecules(&shared, &house, 600);
    let json = house.run(&format!("{line} --method linear-probe --out out")).json();
    assert_eq!(json["cached_features"], true);
    // Three of four molecules are of the larger class.
    assert!(number(&json, "accuracy") > 0.82, "{json}");
}

#[test]
fn a_lora_on_an_albert_is_one_update_for_all_twelve_layers() {
    let Some((shared, house)) = there() else { return };
    let line = molecules(&shared, &house, 160);
    let json = house.run(&format!("{line} --method lora --epochs 3 --lr 0.003 --out out")).json();
    // Query and value of 256 × 256, of rank 8, and a head of two classes.
    assert_eq!(number(&json, "trainable_parameters") as usize, 2 * 8 * (256 + 256) + 2 * 256 + 2);
    let (first, last) = ends(&house, "out");
    assert!(last < 0.9 * first, "from {first} to {last}");
}

#[test]
fn a_lora_on_the_convolutions_of_a_resnet_makes_up_for_jpeg() {
    let Some((shared, house)) = there() else { return };
    for (set, tar, some) in
        [("train", "dev_train_500pc.tar", "00[0-4]?"), ("test", "dev_test_100pc.tar", "00[0-2]?")]
    {
        let mut unpack = Command::new("tar");
        unpack.arg("xf").arg(shared.join("data/image/cifar10_jpeg").join(tar)).arg("-C").arg(house.path("."));
        unpack.args(["--wildcards", &format!("{set}/*/{some}.jpg")]);
        assert!(unpack.status().is_ok_and(|s| s.success()), "{tar} can't be unpacked");
    }
    house.write(
        "preprocessor_config.json",
        r#"{"do_resize": false, "do_rescale": true, "rescale_factor": 0.00392156862745098, "do_normalize": true,
            "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}"#,
    );
    let base = shared.join("models/resnet20_cifar10/converted_resnet20.onnx");
    let line = format!(
        "train --base {} --preprocessor preprocessor_config.json --objective classification --method lora --data train \
         --eval-data test --set objective.pooling=logits --set method.target_modules=.*conv[12] --threads 2 --json",
        base.display()
    );
    let accuracy = |flags: &str| number(&house.run(&format!("{line} {flags}")).json(), "accuracy");
    // At this rate nothing is learnt.
    let before = accuracy("--epochs 1 --lr 1e-9 --out before");
    let after = accuracy("--epochs 3 --lr 2e-3 --out after");
    assert!((before - 0.8167).abs() < 0.01, "without an adapter {before}");
    assert!(after > before + 0.015, "from {before} to {after}");
}
