//! Outputs lie in their slot, which the next call takes.
fn keep(session: &mut tickrt::Session, ticket: tickrt::Ticket) -> tickrt::Result<f32> {
    let mut kept: &[f32] = &[];
    session.wait_into(ticket, |outputs| {
        kept = outputs.slice(0)?;
        Ok(())
    })?;
    Ok(kept[0])
}

fn main() {
    let _ = keep;
}
