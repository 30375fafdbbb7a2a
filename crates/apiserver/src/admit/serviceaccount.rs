//! ServiceAccounts: nothing but their metadata has rules.

use super::strategy::{Again, Strategy};

pub(crate) const RULES: Strategy = Strategy {
    metadata_again: Again::Everything,
    ..Strategy::PLAIN
};
