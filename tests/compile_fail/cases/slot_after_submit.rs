//! A slot is the device's after submit.
fn call(session: &mut tickrt::Session) -> tickrt::Result<()> {
    let mut slot = session.input()?;
    slot.write(0, &[0.0_f32; 8])?;
    slot.submit()?;
    slot.write(0, &[1.0_f32; 8])
}

fn main() {
    let _ = call;
}
