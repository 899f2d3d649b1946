//! A tiny base of two convolutions over images, and pictures whose colour tells their class.

use std::path::Path;

use graft_graph::{Attr, Builder, DType, Dim, Graph, Tensor, ValueId, onnx};
use image::{Rgb, RgbImage};

use crate::Draw;

/// Height and width of the pictures.
pub const SIDE: usize = 8;
/// The classes, in the order of the base's logits.
pub const CLASSES: [&str; 3] = ["blue", "green", "red"];

/// Writes a base of images: two convolutions, a mean over the places, and a layer for three classes; all of it random.
///
/// # Panics
/// When the folder can't be written.
pub fn base(dir: &Path) {
    std::fs::create_dir_all(dir).expect("a folder in a temporary folder");
    let mut g = Graph::new("pictures", onnx::WORKING_OPSET);
    let shape = vec![Dim::from("batch"), Dim::from(3), Dim::from(SIDE), Dim::from(SIDE)];
    let pixels = g.add_input("pixel_values", DType::F32, shape);
    let choices = [5, 6];
    let mut draw = Draw::new(&choices);
    let mut constant = |g: &mut Graph, name: &str, shape: &[usize], bound: f64| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| draw.real(-bound, bound) as f32).collect();
        g.add_constant(name, Tensor::new(shape, &values).expect("as many values as the shape says"))
    };
    let mut value = pixels;
    for (name, from, to, stride) in [("conv1", 3, 4, 1), ("conv2", 4, 6, 2)] {
        let bound = 1.5 / (9.0 * from as f64).sqrt();
        let weight = constant(&mut g, &format!("{name}.weight"), &[to, from, 3, 3], bound);
        let bias = constant(&mut g, &format!("{name}.bias"), &[to], 0.1);
        let attrs = [
            ("kernel_shape", Attr::Ints(vec![3, 3])),
            ("strides", Attr::Ints(vec![stride, stride])),
            ("pads", Attr::Ints(vec![1; 4])),
        ];
        value = named(&mut g, &format!("/{name}/Conv"), "Conv", &[value, weight, bias], &attrs);
        value = named(&mut g, &format!("/{name}/Relu"), "Relu", &[value], &[]);
    }
    let axes = g.add_constant("axes", Tensor::new([2], &[2i64, 3]).expect("two axes"));
    let keep = [("keepdims", Attr::Int(0))];
    value = named(&mut g, "/ReduceMean", "ReduceMean", &[value, axes], &keep);
    let weight = constant(&mut g, "linear.weight", &[3, 6], 1.0);
    let bias = constant(&mut g, "linear.bias", &[3], 0.1);
    let attrs = [("transB", Attr::Int(1))];
    value = named(&mut g, "/linear/Gemm", "Gemm", &[value, weight, bias], &attrs);
    g.rename(value, "logits");
    g.outputs = vec![value];
    onnx::write(&g, &dir.join("model.onnx"), onnx::Placement::Inline).expect("a temporary file");
    let config = r#"{"do_resize": true, "size": {"height": 8, "width": 8}, "resample": 2, "do_rescale": true,
        "rescale_factor": 0.00392156862745098, "do_normalize": true, "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25]}"#;
    std::fs::write(dir.join("preprocessor_config.json"), config).expect("a temporary file");
}

fn named(g: &mut Graph, name: &str, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
    let value = Builder::new(g, "").op_with(op, inputs, attrs);
    g.nodes.last_mut().expect("the node that was just made").name = name.into();
    value
}

/// Writes `each` pictures of each class into a folder of its own; each `seed` gives other ones.
///
/// # Panics
/// When the folder can't be written.
pub fn pictures(dir: &Path, seed: u16, each: usize) {
    let choices = [seed, 4];
    let mut draw = Draw::new(&choices);
    for (k, class) in CLASSES.iter().enumerate() {
        let folder = dir.join(class);
        std::fs::create_dir_all(&folder).expect("a folder in a temporary folder");
        for i in 0..each {
            let mut below = |n: f64| draw.real(0.0, n) as u8;
            let side = 8 + u32::from(below(5.0));
            let picture = RgbImage::from_fn(side, side, |_, _| {
                let mut pixel = [below(150.0), below(150.0), below(150.0)];
                pixel[2 - k] = 100 + below(150.0);
                Rgb(pixel)
            });
            picture.save(folder.join(format!("{i:03}.png"))).expect("a temporary file");
        }
    }
}
