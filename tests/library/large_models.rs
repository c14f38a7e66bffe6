//! Models that are too large for one message, here by a limit of a few bytes, on every engine at hand.

use lsqc::compiler::{load_as_is, load_within};
use lsqc_passes::onnx::{OwnOps, WriteOptions};
use lsqc_passes::text;

use crate::engine_support::{engines, options, tensors, wave};

const MODEL: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
g (float[2,8] x) => (float[2,6] y)
<float[8,6] w = normal(seed = 1), float[6] b = normal(seed = 2), int64[2] order = {1, 0}, float16[6] h = normal(seed = 3)>
{ p = MatMul (x, w)  s = Add (p, b)  f = Cast <to = 1> (h)  t = Add (s, f)  y = Gather (t, order) }"#;

#[test]
fn tensors_are_handed_over_beside_the_message() {
    let model = text::parse(MODEL).unwrap();
    let small = WriteOptions {
        max_bytes: 600,
        min_external: 8,
        ..WriteOptions::default()
    };
    let feeds = tensors([("x", wave(&[2, 8], 1.0))]);
    for engine in engines() {
        let engine = engine.as_ref();
        let options = options(&[]);
        let whole = load_as_is(engine, &model, OwnOps::Refuse, &options)
            .unwrap()
            .run(&feeds)
            .unwrap();
        match load_within(engine, &model, &small, &options) {
            Ok(mut session) => assert_eq!(session.run(&feeds).unwrap(), whole, "{}", engine.name()),
            Err(error) => {
                let said = format!("{error:#}");
                assert!(
                    engine.name() == "tract" && said.contains("over 2 GB") && said.contains("--engine ort"),
                    "{said}"
                );
            }
        }
    }
}
