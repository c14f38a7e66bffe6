//! Products with something fused behind, of ONNX Runtime's domain `com.microsoft`, version 1.
//!
//! FusedMatMul: α·A'·B', where `transA` swaps the last two axes of A, and `transBatchA` moves its first axis behind the others but the last;
//! the same for B. FusedGemm: f(α·A'·B' + β·C). FusedConv: f(Conv(X, W, B) + Z). Of the activations those are known whose parameters have one
//! meaning.

use super::site::Site;
use crate::ir::{Attr, Attribute, Op, ValueId};

type Results = Result<Vec<Option<ValueId>>, String>;

/// com.microsoft FusedMatMul.
pub(super) fn fused_matmul(site: &mut Site) -> Results {
    site.attributes(&["alpha", "transA", "transB", "transBatchA", "transBatchB"])?;
    site.at_most(2)?;
    let a = transposed(site, 0, "A", "transA", "transBatchA")?;
    let b = transposed(site, 1, "B", "transB", "transBatchB")?;
    let alpha = site.number("alpha")?.unwrap_or(1.0);
    let product = site.b.matmul(a, b);
    site.name(product, "");
    Ok(vec![Some(scaled(site, product, alpha))])
}

/// A product by a number, left out where that is 1.
#[allow(clippy::float_cmp)]
pub(super) fn scaled(site: &mut Site, x: ValueId, factor: f32) -> ValueId {
    if factor == 1.0 { x } else { site.b.scale(x, factor) }
}

fn transposed(site: &mut Site, index: usize, name: &str, swap: &str, batch: &str) -> Result<ValueId, String> {
    let x = site.float(index, name)?;
    let (swap, batch) = (site.flag(swap)?, site.flag(batch)?);
    if !swap && !batch {
        return Ok(x);
    }
    let rank = site.rank(x, name)?;
    if rank < 2 {
        return Err(format!("its operand {name} is no matrix"));
    }
    let mut perm: Vec<i64> = (0..).take(rank).collect();
    if batch {
        perm[..rank - 1].rotate_left(1);
    }
    if swap {
        perm.swap(rank - 2, rank - 1);
    }
    Ok(site.b.transpose(x, &perm))
}

/// com.microsoft FusedGemm.
pub(super) fn fused_gemm(site: &mut Site) -> Results {
    const OWN: [&str; 4] = ["activation", "activation_alpha", "activation_beta", "activation_gamma"];
    const GEMM: [&str; 4] = ["alpha", "beta", "transA", "transB"];
    site.attributes(&[OWN, GEMM].concat())?;
    site.at_most(3)?;
    site.float(0, "A")?;
    let mut parameters = Vec::new();
    for name in &OWN[1..] {
        parameters.push(site.number(name)?);
    }
    let y = without_attributes(site, "Gemm", &OWN, 3);
    Ok(vec![Some(activation(site, y, &parameters)?)])
}

/// com.microsoft FusedConv.
pub(super) fn fused_conv(site: &mut Site) -> Results {
    const OWN: [&str; 2] = ["activation", "activation_params"];
    const CONV: [&str; 6] = ["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];
    site.attributes(&[&OWN[..], &CONV[..]].concat())?;
    site.at_most(4)?;
    site.float(0, "X")?;
    let parameters: Vec<Option<f32>> = match site.node.attr("activation_params") {
        None => Vec::new(),
        Some(Attr::Floats(values)) => values.iter().copied().map(Some).collect(),
        Some(_) => return Err("its attribute activation_params holds no floats".to_owned()),
    };
    let mut y = without_attributes(site, "Conv", &OWN, 3);
    if let Some(z) = site.optional_float(3, "Z")? {
        y = site.b.add(y, z);
    }
    Ok(vec![Some(activation(site, y, &parameters)?)])
}

/// The op itself, with its first `operands`.
fn without_attributes(site: &mut Site, op: &'static str, own: &[&str], operands: usize) -> ValueId {
    let attributes = site.node.attributes.iter();
    let attributes: Vec<Attribute> = attributes
        .filter(|attribute| !own.contains(&attribute.name.as_str()))
        .cloned()
        .collect();
    let mut inputs: Vec<Option<ValueId>> = site.node.inputs().iter().copied().take(operands).collect();
    while inputs.last() == Some(&None) {
        inputs.pop();
    }
    let y = site.b.nodes(Op::onnx(op), &inputs, attributes, 1)[0];
    site.name(y, "");
    y
}

/// f(x), with the parameters in the order in which its op has them.
fn activation(site: &mut Site, x: ValueId, parameters: &[Option<f32>]) -> Result<ValueId, String> {
    let name = match site.node.attr("activation") {
        None => return Ok(x),
        Some(Attr::Str(name)) => String::from_utf8_lossy(name).into_owned(),
        Some(_) => return Err("its attribute activation is no text".to_owned()),
    };
    let parameter = |index: usize| parameters.get(index).copied().flatten();
    let with = |names: &[&str]| -> Vec<Attribute> {
        let given = names.iter().enumerate();
        given
            .filter_map(|(index, name)| Some(Attribute::new(name, parameter(index)?)))
            .collect()
    };
    Ok(match name.as_str() {
        "" => x,
        "Relu" => site.op("Relu", &[x], vec![]),
        "Tanh" => site.op("Tanh", &[x], vec![]),
        "Sigmoid" => site.op("Sigmoid", &[x], vec![]),
        "Softplus" => site.op("Softplus", &[x], vec![]),
        "Softsign" => site.op("Softsign", &[x], vec![]),
        "LeakyRelu" => site.op("LeakyRelu", &[x], with(&["alpha"])),
        "Elu" => site.op("Elu", &[x], with(&["alpha"])),
        "ThresholdedRelu" => site.op("ThresholdedRelu", &[x], with(&["alpha"])),
        "HardSigmoid" => site.op("HardSigmoid", &[x], with(&["alpha", "beta"])),
        "Clip" => {
            let (Some(lo), Some(hi)) = (parameter(0), parameter(1)) else {
                return Err("the bounds of its Clip are missing".to_owned());
            };
            site.b.clip(x, lo, hi)
        }
        _ => return Err(format!("lsqc does not know its activation {name}")),
    })
}
