//! One thread at a time uses a session: it is not Sync.
fn share(session: &tickrt::Session) {
    std::thread::scope(|scope| {
        scope.spawn(|| session.depth());
    });
}

fn main() {
    let _ = share;
}
