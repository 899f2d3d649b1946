use super::*;

fn site(path: &str, kind: SiteKind) -> Site {
    Site {
        path: path.to_owned(),
        kind,
        input: None,
        output: None,
        weight: None,
        bias: None,
        in_features: 4,
        out_features: 4,
        transposed: false,
        number: 1,
        conv: None,
        attention: None,
        residual: None,
    }
}

fn bert() -> Vec<Site> {
    let mut sites = vec![site("embeddings.word_embeddings", SiteKind::EMBEDDING)];
    for layer in 0..2 {
        for name in ["attention.self.query", "attention.self.value", "attention.output.dense", "output.dense"]
        {
            sites.push(site(&format!("encoder.layer.{layer}.{name}"), SiteKind::LINEAR));
        }
    }
    sites.push(site("pooler.dense", SiteKind::LINEAR));
    sites.push(site("classifier", SiteKind::LINEAR));
    sites
}

fn list(names: &[&str]) -> Names {
    Names::List(names.iter().map(|n| (*n).to_owned()).collect())
}

fn taken(targets: Option<Names>, exclude: Option<Names>) -> Result<Vec<String>> {
    let sites = bert();
    let kinds = [SiteKind::LINEAR];
    let selection = Selection { targets: targets.as_ref(), exclude: exclude.as_ref(), kinds: &kinds };
    let flags = choose(&sites, &selection)?;
    Ok(sites.into_iter().zip(flags).filter(|(_, t)| *t).map(|(s, _)| s.path).collect())
}

#[test]
fn a_list_is_exact_or_suffix_behind_a_dot() {
    assert_eq!(taken(Some(list(&["query"])), None).unwrap().len(), 2);
    assert_eq!(taken(Some(list(&["output.dense"])), None).unwrap().len(), 4);
    assert_eq!(taken(Some(list(&["pooler.dense"])), None).unwrap(), ["pooler.dense"]);
    assert!(taken(Some(list(&["uery"])), None).is_err());
    assert!(taken(Some(list(&[""])), None).is_err());
}

#[test]
fn a_string_is_a_regular_expression_for_the_whole_path() {
    let pattern = |p: &str| taken(Some(Names::Pattern(p.to_owned())), None);
    assert_eq!(pattern(r"encoder\.layer\.0\..*(query|value)").unwrap().len(), 2);
    assert!(pattern("query").is_err());
    assert_eq!(pattern("(").unwrap_err().code, Code::CONFIG);
}

#[test]
fn all_linear_leaves_out_the_head() {
    let all = taken(Some(Names::Pattern("All-Linear".to_owned())), None).unwrap();
    assert_eq!(all.len(), 9);
    assert!(!all.contains(&"classifier".to_owned()));
}

#[test]
fn exclusion_wins() {
    let left = taken(Some(list(&["dense"])), Some(list(&["pooler.dense"]))).unwrap();
    assert_eq!(left.len(), 4);
}

#[test]
fn the_default_is_what_the_architecture_is_known_for() {
    assert_eq!(taken(None, None).unwrap().len(), 4);
    assert_eq!(
        default_targets(&[site("h.0.mlp.up", SiteKind::LINEAR)], &[SiteKind::LINEAR]),
        Names::Pattern("all-linear".to_owned())
    );
    // DeBERTa's.
    let deberta = ["query_proj", "key_proj", "value_proj"];
    let deberta = deberta.map(|n| site(&format!("encoder.layer.0.attention.self.{n}"), SiteKind::LINEAR));
    assert_eq!(default_targets(&deberta, &[SiteKind::LINEAR]), list(&["query_proj", "value_proj"]));
}

#[test]
fn each_architecture_has_its_names_for_queries_and_values() {
    let names = |paths: &[&str]| {
        let sites: Vec<Site> = paths.iter().map(|p| site(p, SiteKind::LINEAR)).collect();
        default_targets(&sites, &[SiteKind::LINEAR, SiteKind::CONV])
    };
    let t5 =
        ["encoder.block.0.layer.0.SelfAttention.q", "encoder.block.0.layer.0.SelfAttention.v", "lm_head"];
    assert_eq!(names(&t5), list(&["q", "v"]));
    assert_eq!(names(&["h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_fc"]), list(&["c_attn"]));
    let clip = ["vision_model.layers.0.self_attn.q_proj", "text_model.layers.0.self_attn.v_proj"];
    assert_eq!(names(&clip), list(&["q_proj", "v_proj"]));
    let deberta = ["layer.0.attention.self.query_proj", "layer.0.attention.self.value_proj"];
    assert_eq!(names(&deberta), list(&["query_proj", "value_proj"]));
}

#[test]
fn a_base_of_convolutions_has_all_but_the_first_and_those_of_groups() {
    let conv = |path: &str, group: i64| {
        let conv = wire::Conv { kernel: vec![3, 3], dilations: vec![1, 1], group, ..wire::Conv::default() };
        Site { conv: Some(conv), ..site(path, SiteKind::CONV) }
    };
    let sites = [
        conv("stem", 1),
        conv("stages.0.conv1", 1),
        conv("stages.0.depthwise", 8),
        conv("stages.0.conv2", 1),
        site("fc", SiteKind::LINEAR),
    ];
    let all = [SiteKind::LINEAR, SiteKind::CONV, SiteKind::EMBEDDING];
    assert_eq!(default_targets(&sites, &all), list(&["stages.0.conv1", "stages.0.conv2"]));
    // A method of linear layers alone has no other choice.
    assert_eq!(default_targets(&sites, &[SiteKind::LINEAR]), Names::Pattern("all-linear".to_owned()));
}

#[test]
fn matching_nothing_lists_the_nearest() {
    let e = taken(Some(list(&["qeury"])), None).unwrap_err();
    assert_eq!(e.code, Code::NO_SITE);
    assert!(e.message.contains("[qeury]"), "{e}");
    assert!(e.help.contains("encoder.layer.0.attention.self.query"), "{e}");
}

#[test]
fn a_site_of_another_kind_is_refused_by_name() {
    let e = taken(Some(list(&["word_embeddings"])), None).unwrap_err();
    assert_eq!(e.code, Code::UNSUPPORTED);
    assert!(e.message.contains("embeddings.word_embeddings"), "{e}");
}
