//! What each layer takes.

use super::TensorRt;
use crate::device::Settle;
use crate::error::{Error, ErrorKind, Result};

/// One layer, as TensorRT has fused it.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerTimes {
    /// As the plan names it.
    pub name: String,
    /// What it took in each call, in microseconds.
    pub us: Vec<f64>,
}

impl TensorRt {
    /// The first announced shape's layers. The backend is of no use for calls afterwards: its graphs are void.
    pub(crate) fn profile_layers(mut self, calls: usize) -> Result<Vec<LayerTimes>> {
        const WARM_UP: usize = 20;
        self.device_side.contexts[0].profile_layers();
        let mut layers = Vec::new();
        for call in 0..WARM_UP + calls {
            self.device_side.launch_parts(0)?;
            if !self.device_side.settled() {
                return Err(ErrorKind::DeadlineMissed.into());
            }
            let times = self.device_side.contexts[0].take_layer_times();
            if call >= WARM_UP {
                add(&mut layers, times)?;
            }
        }
        Ok(layers)
    }
}

/// Adds one call's times. Names may come twice in a call; the order tells such layers apart.
fn add(layers: &mut Vec<LayerTimes>, times: Vec<(String, f32)>) -> Result<()> {
    if layers.is_empty() {
        layers.extend(times.iter().map(|(name, _)| LayerTimes { name: name.clone(), us: Vec::new() }));
    }
    let same = layers.len() == times.len() && layers.iter().zip(&times).all(|(layer, (name, _))| layer.name == *name);
    if !same || times.is_empty() {
        return Err(Error::new(ErrorKind::Execution, "profile the layers")
            .expected(format!("the times of {} layers in each call", layers.len()))
            .got(format!("{} others", times.len()))
            .advice("report it with the model"));
    }
    layers.iter_mut().zip(times).for_each(|(layer, (_, ms))| layer.us.push(f64::from(ms) * 1e3));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_one_name_are_told_apart_by_their_order() {
        let mut layers = Vec::new();
        let call = |first, second| vec![("conv".to_owned(), first), ("conv".to_owned(), second)];
        add(&mut layers, call(0.001, 0.002)).unwrap();
        add(&mut layers, call(0.003, 0.004)).unwrap();
        let rounded: Vec<Vec<i64>> =
            layers.iter().map(|layer| layer.us.iter().map(|us| us.round() as i64).collect()).collect();
        assert_eq!(rounded, [[1, 3], [2, 4]]);
        let other = add(&mut layers, vec![("conv".to_owned(), 0.1)]).unwrap_err();
        assert!(other.to_string().contains("expected the times of 2 layers in each call, got 1 others"), "{other}");
        assert!(add(&mut Vec::new(), Vec::new()).is_err(), "a plan that tells nothing");
    }
}
