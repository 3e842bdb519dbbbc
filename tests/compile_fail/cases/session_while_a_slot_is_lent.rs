//! A slot that is lent comes first.
fn call(session: &mut tickrt::Session) -> tickrt::Result<()> {
    let slot = session.input()?;
    session.reset(0)?;
    slot.submit()?;
    Ok(())
}

fn main() {
    let _ = call;
}
