//! Convolutions and pools, in one and two dimensions.

use super::node::Node;
use super::{Lowering, Tensor};
use crate::error::Result;
use crate::resident::network::{Conv, Operation, Pool, PoolKind, Sliding};

impl<'graph> Lowering<'graph> {
    pub(super) fn conv(&mut self, node: &Node<'graph>) -> Result<()> {
        node.only(&["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"])?;
        let value = self.tensor(node, 0)?;
        let weights = self.weights(node, 1)?.ok_or_else(|| node.refuse("no weights"))?;
        let groups = usize::try_from(node.int("group", 1)).ok().filter(|&groups| groups > 0);
        let groups = groups.ok_or_else(|| node.refuse("no group"))?;
        let kernel = weights.shape.get(2..).unwrap_or_default().to_vec();
        let sliding = self::sliding(node, &value, &kernel)?;
        let outputs = weights.shape[0];
        if weights.shape[1] * groups != sliding.channels || outputs % groups != 0 {
            return Err(node.refuse(format!(
                "weights of {:?} for {} channels in {groups} groups",
                weights.shape, sliding.channels
            )));
        }
        let bias = self.weights(node, 2)?;
        if bias.as_ref().is_some_and(|bias| bias.count() != outputs) {
            return Err(node.refuse("a bias of another length"));
        }
        let shape = self::shape(&value, outputs, &sliding);
        let weights = weights.as_floats().expect("`weights` has seen it").clone();
        let bias = bias.and_then(|bias| bias.as_floats().cloned());
        let conv = Conv { sliding, outputs, groups, weights, bias, activation: None };
        self.stage(node, Operation::Conv(conv), &[value.id], shape);
        Ok(())
    }

    pub(super) fn pool(&mut self, node: &Node<'graph>) -> Result<()> {
        node.only(&[
            "auto_pad",
            "ceil_mode",
            "count_include_pad",
            "dilations",
            "kernel_shape",
            "pads",
            "storage_order",
            "strides",
        ])?;
        node.no_output_from(1, |name| self.is_used(name))?;
        let value = self.tensor(node, 0)?;
        let kernel = node.ints("kernel_shape").unwrap_or_default();
        let kernel: Option<Vec<usize>> = kernel.iter().map(|&size| usize::try_from(size).ok()).collect();
        let sliding = self::sliding(node, &value, &kernel.unwrap_or_default())?;
        if node.int("ceil_mode", 0) != 0 && !self::fits(&sliding) {
            return Err(node.refuse("ceil_mode where the last window does not fit"));
        }
        let kind = match node.operator() {
            "MaxPool" => PoolKind::Max,
            _ if node.int("count_include_pad", 0) != 0 => PoolKind::AverageWithPadding,
            _ => PoolKind::Average,
        };
        if kind != PoolKind::Max && sliding.dilations != [1, 1] {
            return Err(node.refuse("an average over places that lie apart"));
        }
        // A window over nothing but padding has no maximum and no mean.
        if (0..2).any(|axis| sliding.before[axis].max(sliding.behind[axis]) >= sliding.reach(axis)) {
            return Err(node.refuse("pads as wide as the kernel"));
        }
        let shape = self::shape(&value, sliding.channels, &sliding);
        self.stage(node, Operation::Pool(Pool { sliding, kind }), &[value.id], shape);
        Ok(())
    }

    pub(super) fn global_pool(&mut self, node: &Node<'graph>) -> Result<()> {
        node.only(&[])?;
        let value = self.tensor(node, 0)?;
        let [1, channels, ref places @ ..] = value.shape[..] else {
            return Err(node.refuse(format!("a value of {:?}; the batch is 1", value.shape)));
        };
        let size = [1, places.iter().product()];
        let sliding = Sliding {
            channels,
            size,
            kernel: size,
            strides: [1; 2],
            dilations: [1; 2],
            before: [0; 2],
            behind: [0; 2],
        };
        let kind = if node.operator() == "GlobalMaxPool" { PoolKind::Max } else { PoolKind::Average };
        let shape = [1, channels].into_iter().chain(places.iter().map(|_| 1)).collect();
        self.stage(node, Operation::Pool(Pool { sliding, kind }), &[value.id], shape);
        Ok(())
    }
}

/// How the node's window moves over the value.
fn sliding(node: &Node<'_>, value: &Tensor, kernel: &[usize]) -> Result<Sliding> {
    let [1, channels, ref size @ ..] = value.shape[..] else {
        return Err(node.refuse(format!("a value of {:?}; the batch is 1", value.shape)));
    };
    let rank = size.len();
    if !(1..=2).contains(&rank) || kernel.len() != rank || kernel.contains(&0) {
        return Err(node.refuse(format!("a kernel of {kernel:?} over {size:?}; they have one and two dimensions")));
    }
    let steps = |name: &str| -> Result<Vec<usize>> {
        let given = node.ints(name).map_or_else(|| vec![1; rank], <[i64]>::to_vec);
        let given = given.iter().map(|&step| usize::try_from(step).ok().filter(|&step| step > 0));
        let given = given.collect::<Option<Vec<_>>>().filter(|given| given.len() == rank);
        given.ok_or_else(|| node.refuse(format!("the {name} {:?}", node.ints(name))))
    };
    let (strides, dilations) = (steps("strides")?, steps("dilations")?);
    let reach: Vec<usize> =
        kernel.iter().zip(&dilations).map(|(kernel, dilation)| (kernel - 1) * dilation + 1).collect();
    let (before, behind) = self::pads(node, size, &reach, &strides)?;
    let plane = |given: &[usize], missing: usize| if rank == 1 { [missing, given[0]] } else { [given[0], given[1]] };
    let sliding = Sliding {
        channels,
        size: plane(size, 1),
        kernel: plane(kernel, 1),
        strides: plane(&strides, 1),
        dilations: plane(&dilations, 1),
        before: plane(&before, 0),
        behind: plane(&behind, 0),
    };
    let fits =
        (0..2).all(|axis| sliding.before[axis] + sliding.size[axis] + sliding.behind[axis] >= sliding.reach(axis));
    if fits { Ok(sliding) } else { Err(node.refuse("a kernel larger than what it slides over")) }
}

/// Places before and behind each dimension.
fn pads(node: &Node<'_>, size: &[usize], reach: &[usize], strides: &[usize]) -> Result<(Vec<usize>, Vec<usize>)> {
    let rank = size.len();
    let mode = node.text("auto_pad").unwrap_or_default();
    match mode.as_str() {
        "" | "NOTSET" => {
            let given = node.ints("pads").map_or_else(|| vec![0; 2 * rank], <[i64]>::to_vec);
            let pads = given.iter().map(|&pad| usize::try_from(pad).ok()).collect::<Option<Vec<_>>>();
            let pads = pads.filter(|pads| pads.len() == 2 * rank);
            let pads = pads.ok_or_else(|| node.refuse(format!("the pads {given:?}")))?;
            Ok((pads[..rank].to_vec(), pads[rank..].to_vec()))
        }
        "VALID" => Ok((vec![0; rank], vec![0; rank])),
        "SAME_UPPER" | "SAME_LOWER" => {
            let missing = (0..rank).map(|axis| {
                let windows = size[axis].div_ceil(strides[axis]);
                ((windows - 1) * strides[axis] + reach[axis]).saturating_sub(size[axis])
            });
            let missing: Vec<usize> = missing.collect();
            let (less, more): (Vec<_>, Vec<_>) = missing.iter().map(|all| (all / 2, all - all / 2)).unzip();
            Ok(if mode == "SAME_UPPER" { (less, more) } else { (more, less) })
        }
        other => Err(node.refuse(format!("auto_pad `{other}`"))),
    }
}

fn shape(value: &Tensor, channels: usize, sliding: &Sliding) -> Vec<usize> {
    let [rows, columns] = sliding.output();
    if value.shape.len() == 3 { vec![1, channels, columns] } else { vec![1, channels, rows, columns] }
}

/// Whether the last window ends where the value does, so that rounding up is rounding down.
fn fits(sliding: &Sliding) -> bool {
    (0..2).all(|axis| {
        let room = sliding.before[axis] + sliding.size[axis] + sliding.behind[axis];
        (room - sliding.reach(axis)).is_multiple_of(sliding.strides[axis])
    })
}
