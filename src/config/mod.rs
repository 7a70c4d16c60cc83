//! What a user writes: YAML, merged, checked, resolved into [`Settings`].
mod settings;
pub use settings::*;
