//! Ranges of shapes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::tensor::{Shapes, TensorInfo, format_shape};

/// The least, usual and greatest shape of one input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileShape {
    /// The least.
    pub min: Vec<i64>,
    /// The one that TensorRT tunes for.
    pub opt: Vec<i64>,
    /// The greatest.
    pub max: Vec<i64>,
}

/// Ranges of shapes that an engine is built for, by input (`IOptimizationProfile`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OptimizationProfile {
    /// By the input's name.
    pub shapes: BTreeMap<String, ProfileShape>,
}

impl OptimizationProfile {
    /// An empty profile.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the range of one input.
    #[must_use]
    pub fn tensor(mut self, name: impl Into<String>, min: &[i64], opt: &[i64], max: &[i64]) -> Self {
        self.shapes.insert(name.into(), ProfileShape { min: min.to_vec(), opt: opt.to_vec(), max: max.to_vec() });
        self
    }

    /// Makes a profile from trtexec's three lists. What `opt` lacks is taken from `max`, what `min` lacks from
    /// `opt`, what `max` lacks from `opt`.
    #[must_use]
    pub fn from_shapes(min: &Shapes, opt: &Shapes, max: &Shapes) -> Self {
        let names = min.keys().chain(opt.keys()).chain(max.keys());
        let first = |lists: [&Shapes; 3], name: &String| lists.into_iter().find_map(|list| list.get(name).cloned());
        let shapes = names.filter_map(|name| {
            let shape = ProfileShape {
                min: first([min, opt, max], name)?,
                opt: first([opt, max, min], name)?,
                max: first([max, opt, min], name)?,
            };
            Some((name.clone(), shape))
        });
        Self { shapes: shapes.collect() }
    }
}

/// The first profile that admits these shapes.
pub(crate) fn profile_for(
    profiles: &[OptimizationProfile],
    inputs: &[&TensorInfo],
    dimensions: &[Vec<i64>],
) -> Result<usize> {
    let admits = |profile: &OptimizationProfile| {
        inputs.iter().zip(dimensions).all(|(input, wanted)| {
            profile.shapes.get(&input.name).is_none_or(|range| {
                wanted.iter().zip(range.min.iter().zip(&range.max)).all(|(d, (min, max))| min <= d && d <= max)
            })
        })
    };
    if profiles.is_empty() {
        return Ok(0);
    }
    profiles.iter().position(admits).ok_or_else(|| {
        let ranges = profiles
            .iter()
            .flat_map(|profile| &profile.shapes)
            .map(|(name, range)| format!("{name} from {} to {}", format_shape(&range.min), format_shape(&range.max)));
        let wanted =
            inputs.iter().zip(dimensions).map(|(input, shape)| format!("{}:{}", input.name, format_shape(shape)));
        Error::new(ErrorKind::Shape, "find an optimization profile")
            .expected(ranges.collect::<Vec<_>>().join(" or "))
            .got(wanted.collect::<Vec<_>>().join(","))
            .advice("announce a shape inside it, or build with wider --minShapes and --maxShapes")
    })
}
