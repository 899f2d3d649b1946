//! The page of the manual about operators, made from the rule table.

use super::{FAMILIES, FLAT};
use crate::lower::lowered;

/// `docs/operators.md`: every operator with a gradient rule and what its row says of ties, zeros and limits.
pub fn manual() -> String {
    let mut page = String::from(
        "# Operators with gradients\n\n\
         Made from the rule table of `host/graph/src/grad`; `GRAFT_UPDATE_MANUAL=1 cargo nextest run -p graft-graph manual`\n\
         writes it again. Operator sets 11 and newer are read; older files are brought to one form first. Decisions at\n\
         ties and zeros are PyTorch's.\n\n\
         An operator that is missing here and lies between the trainable parameters and the loss is refused by name before\n\
         training starts; `graft inspect BASE --train` tells beforehand.\n",
    );
    for (title, rows) in FAMILIES.iter().filter(|f| !f.1.is_empty()) {
        page += &format!("\n## {title}\n\n| operator | to know |\n|---|---|\n");
        for (op, note, _) in *rows {
            page += &format!("| {op} | {note} |\n");
        }
    }
    let replaced = lowered().map(|(domain, op)| match domain {
        "" => op.to_string(),
        _ => format!("{domain}::{op}"),
    });
    page += &format!(
        "\n## Replaced by plain operators\n\nWhat stands for them is derived; a use that is not covered is refused with a \
         sentence: {}. An `If` whose condition is a constant becomes its branch.\n",
        replaced.collect::<Vec<_>>().join(", ")
    );
    page += &format!(
        "\n## Nothing flows back\n\nPiecewise constant in their float inputs, or without any; they are passed in silence: \
         {}.\n",
        FLAT.join(", ")
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_manual_is_that_of_the_table() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operators.md");
        if std::env::var_os("GRAFT_UPDATE_MANUAL").is_some_and(|v| v == "1") {
            std::fs::write(&path, manual()).expect("the folder of the manual can be written to");
        }
        let page = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(page == manual(), "docs/operators.md is stale: run this test with GRAFT_UPDATE_MANUAL=1");
    }
}
