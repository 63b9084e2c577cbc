//! People write to an account by Instagram: what it has in common with Messenger is
//! told in [`super::messenger`].

pub use super::messenger::run_instagram as run;
