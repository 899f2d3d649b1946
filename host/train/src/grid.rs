//! The points of a sweep: every combination of the values of its axes.

use indexmap::IndexMap;

use crate::recipe::RecipeError;

/// Most points of a grid.
pub const MAX_POINTS: usize = 10_000;

/// A key of the recipe with the values that it takes, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// The key, as in `--set`.
    pub key: String,
    /// Its values; one alone is a setting of every point.
    pub values: Vec<String>,
}

/// Settings of a point: value by key.
pub type Settings = IndexMap<String, String>;

impl Axis {
    /// Reads `KEY=VALUE,VALUE,…`; commas in brackets, braces and quotes belong to a value.
    ///
    /// # Errors
    /// [`RecipeError::Assignment`] without a key or with an empty value.
    pub fn parse(text: &str) -> Result<Axis, RecipeError> {
        let wrong = || RecipeError::Assignment { text: text.into() };
        let (key, list) = text.split_once('=').ok_or_else(wrong)?;
        let (mut depth, mut quote, mut values) = (0usize, None, vec![String::new()]);
        for c in list.chars() {
            match (c, quote) {
                (c, Some(q)) if c == q => quote = None,
                ('"' | '\'', None) => quote = Some(c),
                ('[' | '{', None) => depth += 1,
                (']' | '}', None) => depth = depth.saturating_sub(1),
                (',', None) if depth == 0 => {
                    values.push(String::new());
                    continue;
                }
                _ => {}
            }
            if let Some(last) = values.last_mut() {
                last.push(c);
            }
        }
        let values: Vec<String> = values.iter().map(|v| v.trim().to_string()).collect();
        if key.trim().is_empty() || values.iter().any(String::is_empty) {
            return Err(wrong());
        }
        Ok(Axis { key: key.trim().into(), values })
    }
}

/// Every combination of the axes' values; the last axis changes fastest.
///
/// # Errors
/// [`RecipeError::Conflict`] for a key that is there twice, and for more than [`MAX_POINTS`] points.
pub fn points(axes: &[Axis]) -> Result<Vec<Settings>, RecipeError> {
    if let Some((_, twice)) = axes.iter().enumerate().find(|(i, a)| axes[..*i].iter().any(|b| b.key == a.key))
    {
        let m = format!("`--set {}` is there twice; give all its values at once", twice.key);
        return Err(RecipeError::Conflict(m));
    }
    let count = axes.iter().try_fold(1usize, |n, a| n.checked_mul(a.values.len()));
    if count.is_none_or(|n| n > MAX_POINTS) {
        return Err(RecipeError::Conflict(format!("the grid has more than {MAX_POINTS} points")));
    }
    let mut points = vec![Settings::new()];
    for axis in axes {
        let with = |p: &Settings| {
            let one = |v: &String| {
                let mut p = p.clone();
                p.insert(axis.key.clone(), v.clone());
                p
            };
            axis.values.iter().map(one).collect::<Vec<_>>()
        };
        points = points.iter().flat_map(with).collect();
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<String> {
        Axis::parse(text).unwrap().values
    }

    #[test]
    fn values_are_parted_by_commas_outside_of_brackets_and_quotes() {
        assert_eq!(values("method.r=4, 8,16"), ["4", "8", "16"]);
        assert_eq!(values(r#"m.t=["q","v"],["k"]"#), [r#"["q","v"]"#, r#"["k"]"#]);
        assert_eq!(values(r#"text="a,b",c"#), [r#""a,b""#, "c"]);
        for wrong in ["lr", "=1", "lr=", "lr=1,,2", "lr=1,"] {
            assert!(Axis::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_last_axis_changes_fastest() {
        let axes = ["a=1,2", "b=x", "c=3,4"].map(|t| Axis::parse(t).unwrap());
        let shown = |s: &Settings| s.values().cloned().collect::<Vec<_>>().join("");
        let points: Vec<String> = points(&axes).unwrap().iter().map(shown).collect();
        assert_eq!(points, ["1x3", "1x4", "2x3", "2x4"]);
    }

    #[test]
    fn a_grid_without_end_and_a_key_given_twice_are_refused() {
        let many = Axis { key: "a".into(), values: vec!["1".into(); 101] };
        let other = Axis { key: "b".into(), ..many.clone() };
        assert!(points(&[many.clone(), other]).unwrap_err().to_string().contains("10000"));
        assert!(points(&[many.clone(), many]).unwrap_err().to_string().contains("twice"));
    }
}
