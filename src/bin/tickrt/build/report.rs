//! `--precision-report`: layer by layer, what precision each ended in.

use serde_json::Value;
use tickrt::onnx::NodePrecision;
use tickrt::{Engine, Plan};

use crate::table::Table;

/// Prints what became of the nodes, and what the engine's layers compute in.
pub fn print(nodes: Option<&[NodePrecision]>, layers_json: &str, plan: &Plan, device: usize) {
    if let Some(nodes) = nodes {
        println!("\nnodes, as the model was lowered");
        let mut table = Table::new(&["node", "operator", "precision", ""]);
        for node in nodes {
            table.row([node.name.clone(), node.operator.clone(), node.precision.to_string(), node.why.clone()]);
        }
        table.print();
    }
    match Engine::from_plan(plan, device) {
        Ok(engine) => {
            println!("\nlayers of the engine");
            print_layers(&engine_layers(&engine.layers_json()));
        }
        Err(error) => {
            println!("\nlayers of the network, by the type of what comes out of each");
            print_layers(&network_layers(layers_json));
            println!("\n  what TensorRT made of them an engine that is loaded tells; not here: {error}");
        }
    }
}

/// Name, kind and precision.
type Layer = [String; 3];

fn print_layers(layers: &[Layer]) {
    let mut table = Table::new(&["layer", "type", "precision"]);
    layers.iter().for_each(|layer| table.row(layer));
    table.print();
}

fn text(of: &Value, key: &str) -> String {
    of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn list(json: &str) -> Vec<Value> {
    let json: Value = serde_json::from_str(json).unwrap_or(Value::Null);
    json.get("Layers").unwrap_or(&json).as_array().cloned().unwrap_or_default()
}

fn network_layers(json: &str) -> Vec<Layer> {
    list(json).iter().map(|layer| [text(layer, "name"), text(layer, "type"), text(layer, "precision")]).collect()
}

/// TensorRT's inspector has types only in its words for the format of each output.
fn engine_layers(json: &str) -> Vec<Layer> {
    let layers = list(json);
    let layers = layers.iter().map(|layer| {
        let name = layer.as_str().map_or_else(|| text(layer, "Name"), str::to_owned);
        let outputs = layer.get("Outputs").and_then(Value::as_array).cloned().unwrap_or_default();
        let format = outputs.first().map(|output| text(output, "Format/Datatype")).unwrap_or_default();
        [name, text(layer, "LayerType"), precision(&format)]
    });
    layers.collect()
}

/// `fp16` of `Row major linear FP16 format` (TensorRT 8) and of `Half` (later ones).
fn precision(format: &str) -> String {
    const WORDS: [(&str, &str); 12] = [
        ("bf16", "bf16"),
        ("bfloat16", "bf16"),
        ("fp8", "fp8"),
        ("fp16", "fp16"),
        ("half", "fp16"),
        ("fp32", "fp32"),
        ("float", "fp32"),
        ("int8", "int8"),
        ("int32", "int32"),
        ("int64", "int64"),
        ("bool", "bool"),
        ("uint8", "uint8"),
    ];
    let format = format.to_lowercase();
    let found = WORDS.iter().find(|(word, _)| format.contains(word));
    found.map_or_else(
        || if format.is_empty() { "not told".to_owned() } else { format.clone() },
        |found| found.1.to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_read_as_each_tensorrt_tells_them() {
        let eight = r#"{"Layers": [{"Name": "conv + relu", "LayerType": "CaskConvolution",
            "Outputs": [{"Name": "x", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}]},
            "a name alone"]}"#;
        let ten = r#"{"Layers": [{"Name": "gemm", "LayerType": "gemm", "Outputs": [{"Format/Datatype": "Half"}]}]}"#;
        assert_eq!(engine_layers(eight)[0], ["conv + relu", "CaskConvolution", "int8"]);
        assert_eq!(engine_layers(eight)[1], ["a name alone", "", "not told"]);
        assert_eq!(engine_layers(ten)[0][2], "fp16");
        assert_eq!(precision("Row major linear FP16 format"), "fp16");
        assert_eq!(precision("BFloat16"), "bf16");
    }
}
