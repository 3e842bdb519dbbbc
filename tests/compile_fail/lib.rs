//! Programs that must not compile: see cases/.

/// What must compile: a session moves between threads, an engine is shared by them.
pub fn allowed(session: tickrt::Session, engine: &tickrt::Engine) {
    std::thread::scope(|scope| {
        scope.spawn(move || session.depth());
        scope.spawn(|| engine.layer_count());
    });
}
