//! [`Live`]: an immutable value that others read while it is replaced as a whole.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// A value with many readers and one who replaces it. Readers never wait.
#[derive(Debug)]
pub struct Live<T>(ArcSwap<T>);

impl<T> Live<T> {
    /// Starts with `value`.
    pub fn new(value: T) -> Self {
        Self(ArcSwap::from_pointee(value))
    }

    /// The value of this moment; it stays whole for as long as the caller keeps it.
    pub fn load(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Replaces the value for everybody who loads it from now on.
    pub fn replace(&self, value: T) {
        self.share(Arc::new(value));
    }

    /// The same by a value that others have as well.
    pub fn share(&self, value: Arc<T>) {
        self.0.store(value);
    }
}
