//! Checks JSON against a schema.

use serde_json::Value;

/// What in `value` does not fit `schema`: the part of JSON Schema that the generated schema uses.
pub fn problems(value: &Value, schema: &Value, root: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(target) = schema["$ref"].as_str() {
        found.extend(problems(
            value,
            root.pointer(target.trim_start_matches('#')).unwrap(),
            root,
            at,
        ));
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(options) = schema[key].as_array() {
            let tried: Vec<Vec<String>> = options.iter().map(|option| problems(value, option, root, at)).collect();
            if tried.iter().all(|problems| !problems.is_empty()) {
                found.extend(tried.into_iter().next().unwrap());
            }
        }
    }
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => panic!("{kind}"),
    };
    let fits = match &schema["type"] {
        Value::String(kind) => is(kind),
        Value::Array(kinds) => kinds.iter().any(|kind| is(kind.as_str().unwrap())),
        _ => true,
    };
    let listed = schema["enum"].as_array().is_none_or(|words| words.contains(value));
    if !fits || !listed || schema.get("const").is_some_and(|constant| constant != value) {
        found.push(format!("{at} is {value}"));
    }
    if let (Some(fields), Some(properties)) = (value.as_object(), schema["properties"].as_object()) {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                found.push(format!("{at} lacks {name}"));
            }
        }
        for (name, field) in fields {
            match properties.get(name) {
                Some(property) => found.extend(problems(field, property, root, &format!("{at}.{name}"))),
                None => found.push(format!("{at} has {name}")),
            }
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        if schema["items"].is_object() {
            found.extend(problems(item, &schema["items"], root, &format!("{at}[{index}]")));
        }
    }
    found
}
