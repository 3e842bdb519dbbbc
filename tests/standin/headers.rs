//! Reads the abstract classes of NvInferImpl.h and NvOnnxParser.h and writes classes that override all of their functions.

use std::fmt::Write as _;

/// Those of NvInferImpl.h that the stand-in library makes objects of.
pub const LIBRARY: [&str; 15] = [
    "VHostMemory",
    "VRuntime",
    "VOptimizationProfile",
    "VCudaEngine",
    "VExecutionContext",
    "VEngineInspector",
    "VTensor",
    "VLayer",
    "VConstantLayer",
    "VElementWiseLayer",
    "VActivationLayer",
    "VNetworkDefinition",
    "VTimingCache",
    "VBuilderConfig",
    "VBuilder",
];
/// Those of NvOnnxParser.h that the stand-in parser makes objects of.
pub const PARSER: [&str; 2] = ["IParserError", "IParser"];

/// For each of `classes` X that the preprocessed `header` declares, a `NotedX`, whose functions note that they were called and return nothing.
pub fn noted(header: &str, namespace: &str, classes: &[&str]) -> String {
    let mut made = String::new();
    for class in classes {
        let body = body_of(header, class).unwrap_or_else(|| panic!("the header declares {class}"));
        writeln!(made, "class Noted{class} : public {namespace}::{class} {{\n  public:").unwrap();
        for (result, rest, name) in body.split(';').filter_map(pure_function) {
            let noted = format!("note(\"?{class}::{name}\"); return nothing<{result}>();");
            writeln!(made, "    {result} {rest} override {{ {noted} }}").unwrap();
        }
        made.push_str("};\n");
    }
    made
}

fn body_of<'a>(text: &'a str, class: &str) -> Option<&'a str> {
    // Not where it is only named beforehand.
    let opened = ["\n{", " : public VRoot\n{"].map(|after| format!("class {class}{after}"));
    let rest = opened.iter().find_map(|opened| text.split_once(opened.as_str()))?.1;
    rest.split_once("\n};").map(|(body, _)| body)
}

/// `virtual T* f(int32_t x) const noexcept = 0` as `T*`, `f(int32_t x) const noexcept` and `f`.
fn pure_function(statement: &str) -> Option<(String, String, &str)> {
    let declared = statement.split_once("virtual ")?.1.trim_end().strip_suffix('0')?.trim_end().strip_suffix('=')?;
    let (before, arguments) = declared.split_once('(')?;
    let (result, name) = before.rsplit_once([' ', '*', '&'])?;
    // What was split at belongs to the type.
    let result = before[..result.len() + 1].trim();
    Some((result.to_owned(), format!("{name}({}", arguments.trim_end().replace('\n', " ")), name))
}
