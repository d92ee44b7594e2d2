//! A value that is replaced as a whole while others read it.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::FromRef;

/// What is current; its clones are the same one. Reading takes no lock and waits for nobody, and
/// whoever has read a value keeps it, also after another one took its place.
pub struct Current<T>(Arc<ArcSwap<T>>);

impl<T> Current<T> {
    /// This value, until another one takes its place.
    pub fn new(value: impl Into<Arc<T>>) -> Self {
        Self(Arc::new(ArcSwap::new(value.into())))
    }

    /// The value now.
    pub fn get(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Puts this value in its place.
    pub fn set(&self, value: impl Into<Arc<T>>) {
        self.0.store(value.into());
    }
}

impl<T> Clone for Current<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: fmt::Debug> fmt::Debug for Current<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Current").field(&self.get()).finish()
    }
}

/// A route whose state is current gets the value as it is when a request comes.
impl<T> FromRef<Current<T>> for Arc<T> {
    fn from_ref(current: &Current<T>) -> Self {
        current.get()
    }
}
