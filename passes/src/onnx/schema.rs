// Generated from passes/proto/onnx-ml.proto (Apache-2.0, by the ONNX project's contributors) by
// `cargo run --manifest-path passes/proto/generate/Cargo.toml`. Do not edit.

/// A message of the schema.
pub(super) struct Message {
    /// Its name.
    pub name: &'static str,
    /// Number and name of each field and, where it is a message, that message's place in [`MESSAGES`]; by number.
    pub fields: &'static [(u32, &'static str, Option<usize>)],
}

/// Where the outermost message stands in [`MESSAGES`].
pub(super) const MODEL: usize = 5;

/// Every message of the schema.
#[rustfmt::skip]
pub(super) static MESSAGES: &[Message] = &[
    Message {
        name: "AttributeProto",
        fields: &[
            (1, "name", None),
            (2, "f", None),
            (3, "i", None),
            (4, "s", None),
            (5, "t", Some(15)),
            (6, "g", Some(3)),
            (7, "floats", None),
            (8, "ints", None),
            (9, "strings", None),
            (10, "tensors", Some(15)),
            (11, "graphs", Some(3)),
            (13, "doc_string", None),
            (14, "tp", Some(20)),
            (15, "type_protos", Some(20)),
            (20, "type", None),
            (21, "ref_attr_name", None),
            (22, "sparse_tensor", Some(12)),
            (23, "sparse_tensors", Some(12)),
        ],
    },
    Message {
        name: "DeviceConfigurationProto",
        fields: &[
            (1, "name", None),
            (2, "num_devices", None),
            (3, "device", None),
        ],
    },
    Message {
        name: "FunctionProto",
        fields: &[
            (1, "name", None),
            (4, "input", None),
            (5, "output", None),
            (6, "attribute", None),
            (7, "node", Some(7)),
            (8, "doc_string", None),
            (9, "opset_import", Some(8)),
            (10, "domain", None),
            (11, "attribute_proto", Some(0)),
            (12, "value_info", Some(27)),
            (13, "overload", None),
            (14, "metadata_props", Some(13)),
        ],
    },
    Message {
        name: "GraphProto",
        fields: &[
            (1, "node", Some(7)),
            (2, "name", None),
            (5, "initializer", Some(15)),
            (10, "doc_string", None),
            (11, "input", Some(27)),
            (12, "output", Some(27)),
            (13, "value_info", Some(27)),
            (14, "quantization_annotation", Some(14)),
            (15, "sparse_initializer", Some(12)),
            (16, "metadata_props", Some(13)),
        ],
    },
    Message {
        name: "IntIntListEntryProto",
        fields: &[
            (1, "key", None),
            (2, "value", None),
        ],
    },
    Message {
        name: "ModelProto",
        fields: &[
            (1, "ir_version", None),
            (2, "producer_name", None),
            (3, "producer_version", None),
            (4, "domain", None),
            (5, "model_version", None),
            (6, "doc_string", None),
            (7, "graph", Some(3)),
            (8, "opset_import", Some(8)),
            (14, "metadata_props", Some(13)),
            (20, "training_info", Some(19)),
            (25, "functions", Some(2)),
            (26, "configuration", Some(1)),
        ],
    },
    Message {
        name: "NodeDeviceConfigurationProto",
        fields: &[
            (1, "configuration_id", None),
            (2, "sharding_spec", Some(10)),
            (3, "pipeline_stage", None),
        ],
    },
    Message {
        name: "NodeProto",
        fields: &[
            (1, "input", None),
            (2, "output", None),
            (3, "name", None),
            (4, "op_type", None),
            (5, "attribute", Some(0)),
            (6, "doc_string", None),
            (7, "domain", None),
            (8, "overload", None),
            (9, "metadata_props", Some(13)),
            (10, "device_configurations", Some(6)),
        ],
    },
    Message {
        name: "OperatorSetIdProto",
        fields: &[
            (1, "domain", None),
            (2, "version", None),
        ],
    },
    Message {
        name: "ShardedDimProto",
        fields: &[
            (1, "axis", None),
            (2, "simple_sharding", Some(11)),
        ],
    },
    Message {
        name: "ShardingSpecProto",
        fields: &[
            (1, "tensor_name", None),
            (2, "device", None),
            (3, "index_to_device_group_map", Some(4)),
            (4, "sharded_dim", Some(9)),
        ],
    },
    Message {
        name: "SimpleShardedDimProto",
        fields: &[
            (1, "dim_value", None),
            (2, "dim_param", None),
            (3, "num_shards", None),
        ],
    },
    Message {
        name: "SparseTensorProto",
        fields: &[
            (1, "values", Some(15)),
            (2, "indices", Some(15)),
            (3, "dims", None),
        ],
    },
    Message {
        name: "StringStringEntryProto",
        fields: &[
            (1, "key", None),
            (2, "value", None),
        ],
    },
    Message {
        name: "TensorAnnotation",
        fields: &[
            (1, "tensor_name", None),
            (2, "quant_parameter_tensor_names", Some(13)),
        ],
    },
    Message {
        name: "TensorProto",
        fields: &[
            (1, "dims", None),
            (2, "data_type", None),
            (3, "segment", Some(16)),
            (4, "float_data", None),
            (5, "int32_data", None),
            (6, "string_data", None),
            (7, "int64_data", None),
            (8, "name", None),
            (9, "raw_data", None),
            (10, "double_data", None),
            (11, "uint64_data", None),
            (12, "doc_string", None),
            (13, "external_data", Some(13)),
            (14, "data_location", None),
            (16, "metadata_props", Some(13)),
        ],
    },
    Message {
        name: "TensorProto.Segment",
        fields: &[
            (1, "begin", None),
            (2, "end", None),
        ],
    },
    Message {
        name: "TensorShapeProto",
        fields: &[
            (1, "dim", Some(18)),
        ],
    },
    Message {
        name: "TensorShapeProto.Dimension",
        fields: &[
            (1, "dim_value", None),
            (2, "dim_param", None),
            (3, "denotation", None),
        ],
    },
    Message {
        name: "TrainingInfoProto",
        fields: &[
            (1, "initialization", Some(3)),
            (2, "algorithm", Some(3)),
            (3, "initialization_binding", Some(13)),
            (4, "update_binding", Some(13)),
        ],
    },
    Message {
        name: "TypeProto",
        fields: &[
            (1, "tensor_type", Some(26)),
            (4, "sequence_type", Some(24)),
            (5, "map_type", Some(21)),
            (6, "denotation", None),
            (7, "opaque_type", Some(22)),
            (8, "sparse_tensor_type", Some(25)),
            (9, "optional_type", Some(23)),
        ],
    },
    Message {
        name: "TypeProto.Map",
        fields: &[
            (1, "key_type", None),
            (2, "value_type", Some(20)),
        ],
    },
    Message {
        name: "TypeProto.Opaque",
        fields: &[
            (1, "domain", None),
            (2, "name", None),
        ],
    },
    Message {
        name: "TypeProto.Optional",
        fields: &[
            (1, "elem_type", Some(20)),
        ],
    },
    Message {
        name: "TypeProto.Sequence",
        fields: &[
            (1, "elem_type", Some(20)),
        ],
    },
    Message {
        name: "TypeProto.SparseTensor",
        fields: &[
            (1, "elem_type", None),
            (2, "shape", Some(17)),
        ],
    },
    Message {
        name: "TypeProto.Tensor",
        fields: &[
            (1, "elem_type", None),
            (2, "shape", Some(17)),
        ],
    },
    Message {
        name: "ValueInfoProto",
        fields: &[
            (1, "name", None),
            (2, "type", Some(20)),
            (3, "doc_string", None),
            (4, "metadata_props", Some(13)),
        ],
    },
];
