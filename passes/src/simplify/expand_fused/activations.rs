//! Activations of ONNX Runtime's domain `com.microsoft`, version 1.
//!
//! Gelu and BiasGelu: ½·x·(1 + erf(x/√2)), of x + bias. FastGelu: ½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))), of x + bias if there is one
//! (Hendrycks & Gimpel, arXiv 1606.08415). QuickGelu: x·σ(α·x).

use super::site::Site;
use crate::ir::ValueId;

type Results = Result<Vec<Option<ValueId>>, String>;

/// com.microsoft Gelu.
pub(super) fn gelu(site: &mut Site) -> Results {
    site.attributes(&[])?;
    site.at_most(1)?;
    let x = site.float(0, "X")?;
    Ok(vec![Some(exact(site, x))])
}

/// com.microsoft BiasGelu.
pub(super) fn bias_gelu(site: &mut Site) -> Results {
    site.attributes(&[])?;
    site.at_most(2)?;
    let (x, bias) = (site.float(0, "A")?, site.float(1, "B")?);
    let x = site.b.add(x, bias);
    Ok(vec![Some(exact(site, x))])
}

/// com.microsoft FastGelu.
pub(super) fn fast_gelu(site: &mut Site) -> Results {
    site.attributes(&[])?;
    site.at_most(2)?;
    let mut x = site.float(0, "X")?;
    if let Some(bias) = site.optional_float(1, "bias")? {
        x = site.b.add(x, bias);
    }
    // √(2/π)·(x + 0.044715·x³) = x·(√(2/π) + √(2/π)·0.044715·x²)
    let root = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;
    let b = &mut site.b;
    let square = b.mul(x, x);
    let scaled = b.scale(square, root * 0.044_715);
    let constant = b.scalar(root);
    let factor = b.add(scaled, constant);
    let inner = b.mul(x, factor);
    let tanh = b.unary("Tanh", inner);
    Ok(vec![Some(gated(site, x, tanh))])
}

/// com.microsoft QuickGelu.
pub(super) fn quick_gelu(site: &mut Site) -> Results {
    site.attributes(&["alpha"])?;
    site.at_most(1)?;
    let x = site.float(0, "X")?;
    let alpha = site.number("alpha")?.unwrap_or(1.702);
    let scaled = site.b.scale(x, alpha);
    let gate = site.b.unary("Sigmoid", scaled);
    let y = site.b.mul(x, gate);
    site.name(y, "");
    Ok(vec![Some(y)])
}

fn exact(site: &mut Site, x: ValueId) -> ValueId {
    let root = site.b.scalar(std::f32::consts::SQRT_2);
    let scaled = site.b.div(x, root);
    let erf = site.b.unary("Erf", scaled);
    gated(site, x, erf)
}

/// ½·x·(1 + gate)
fn gated(site: &mut Site, x: ValueId, gate: ValueId) -> ValueId {
    let one = site.b.scalar(1.0);
    let gate = site.b.add(gate, one);
    let product = site.b.mul(x, gate);
    let y = site.b.scale(product, 0.5);
    site.name(y, "");
    y
}
