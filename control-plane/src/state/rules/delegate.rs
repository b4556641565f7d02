//! A rule that leaves its requests to another VirtualService, joined with one of that object's rules: the conditions of both
//! hold, and what the rule there leaves out is as the delegating rule says.

use api::{HeaderChanges, HttpMatch, NamedMatch, StringMatch};

use super::{ActionTemplate, Delegation, Filter, ForwardTemplate, HttpTemplate};

/// What two conditions cannot be joined in.
pub(crate) type Apart = &'static str;

/// The fields that replace the prefix that the rule matched: the joined one must be the one they were written for.
pub(crate) const REWRITE: Apart = "rewrite.uri";
pub(crate) const PREFIX_REWRITE: Apart = "redirect.prefixRewrite";

/// The rule `leaf` as the requests of `root` find it; `root` is the rule that delegates, by `delegation`.
///
/// # Errors
/// Names the condition in which no request can meet both, or in which two expressions would have to hold at once; or what
/// would replace another part of the path than the leaf means.
pub(crate) fn join(
    root: &HttpTemplate,
    delegation: &Delegation,
    leaf: &HttpTemplate,
) -> Result<HttpTemplate, Apart> {
    let mut joined = leaf.clone();
    joined.name = name(&root.name, &leaf.name);
    joined.blocks = blocks(&root.blocks, &leaf.blocks, replaces_prefix(&leaf.action))?;
    if let ActionTemplate::Forward(forward) = &mut joined.action {
        let Delegation {
            to: _,
            timeout,
            retry,
            rewrite,
            fault,
            mirrors,
        } = delegation;
        let ForwardTemplate {
            shares: _,
            timeout: own_timeout,
            retry: own_retry,
            rewrite: own_rewrite,
            fault: own_fault,
            mirrors: own_mirrors,
        } = &mut **forward;
        *own_timeout = own_timeout.or(*timeout);
        *own_retry = own_retry.take().or_else(|| retry.clone());
        *own_rewrite = own_rewrite.take().or_else(|| rewrite.clone());
        *own_fault = own_fault.take().or_else(|| fault.clone());
        if own_mirrors.is_empty() {
            own_mirrors.clone_from(mirrors);
        }
    }
    let none = HeaderChanges::default();
    if joined.request_headers == none && joined.response_headers == none {
        joined.request_headers.clone_from(&root.request_headers);
        joined.response_headers.clone_from(&root.response_headers);
    }
    joined.cors = joined.cors.take().or_else(|| root.cors.clone());
    Ok(joined)
}

fn name(root: &str, leaf: &str) -> String {
    match (root, leaf) {
        (one, "") | ("", one) => one.to_owned(),
        (root, leaf) => format!("{root}-{leaf}"),
    }
}

/// Each block of the one with each of the other. What cannot be met by any request is left out, unless it is all of them.
fn blocks(
    root: &[(Filter, HttpMatch)],
    leaf: &[(Filter, HttpMatch)],
    replaces_prefix: Option<Apart>,
) -> Result<Vec<(Filter, HttpMatch)>, Apart> {
    if root.is_empty() || leaf.is_empty() {
        return Ok(root.iter().chain(leaf).cloned().collect());
    }
    let mut joined = Vec::with_capacity(root.len() * leaf.len());
    let mut apart = None;
    for (root_filter, root) in root {
        for (leaf_filter, leaf) in leaf {
            match filters(root_filter, leaf_filter).and_then(|f| Ok((f, conditions(root, leaf)?))) {
                Ok(block) => match replaces_prefix.filter(|_| narrows_prefix(leaf, &block.1)) {
                    Some(field) => return Err(field),
                    None => joined.push(block),
                },
                Err(field) => apart = Some(field),
            }
        }
    }
    match apart {
        Some(field) if joined.is_empty() => Err(field),
        _ => Ok(joined),
    }
}

/// The field by which a rule replaces the prefix that it matched.
fn replaces_prefix(action: &ActionTemplate) -> Option<Apart> {
    match action {
        ActionTemplate::Forward(forward) => {
            let uri = forward.rewrite.as_ref()?.uri.as_ref();
            uri.map(|_| REWRITE)
        }
        ActionTemplate::Redirect { redirect, .. } => redirect.prefix_rewrite.as_ref().map(|_| PREFIX_REWRITE),
        ActionTemplate::Direct(_) | ActionTemplate::Delegate(_) => None,
    }
}

fn narrows_prefix(leaf: &HttpMatch, joined: &HttpMatch) -> bool {
    matches!(leaf.uri, Some(StringMatch::Prefix(_))) && joined.uri != leaf.uri
}

fn filters(root: &Filter, leaf: &Filter) -> Result<Filter, Apart> {
    let mut labels = root.source_labels.clone();
    for (key, value) in &leaf.source_labels {
        if labels
            .insert(key.clone(), value.clone())
            .is_some_and(|other| other != *value)
        {
            return Err("sourceLabels");
        }
    }
    Ok(Filter {
        port: either("port", root.port, leaf.port)?,
        source_namespace: either(
            "sourceNamespace",
            root.source_namespace.clone(),
            leaf.source_namespace.clone(),
        )?,
        source_labels: labels,
    })
}

fn either<T: PartialEq>(field: Apart, root: Option<T>, leaf: Option<T>) -> Result<Option<T>, Apart> {
    match (root, leaf) {
        (Some(root), Some(leaf)) if root != leaf => Err(field),
        (root, leaf) => Ok(leaf.or(root)),
    }
}

fn conditions(root: &HttpMatch, leaf: &HttpMatch) -> Result<HttpMatch, Apart> {
    let of_case = match (&root.uri, &leaf.uri) {
        (Some(_), Some(_)) if root.ignore_uri_case != leaf.ignore_uri_case => return Err("ignoreUriCase"),
        (Some(_), None) => root.ignore_uri_case,
        _ => leaf.ignore_uri_case,
    };
    let is_match = match of_case {
        true => StringMatch::is_match_ignoring_case,
        false => StringMatch::is_match,
    };
    Ok(HttpMatch {
        name: name(&root.name, &leaf.name),
        uri: both("uri", root.uri.as_ref(), leaf.uri.as_ref(), is_match)?,
        method: text("method", root.method.as_ref(), leaf.method.as_ref())?,
        authority: text("authority", root.authority.as_ref(), leaf.authority.as_ref())?,
        scheme: text("scheme", root.scheme.as_ref(), leaf.scheme.as_ref())?,
        headers: named("headers", &root.headers, &leaf.headers)?,
        // That two things are absent is never at odds.
        without_headers: root
            .without_headers
            .iter()
            .chain(&leaf.without_headers)
            .cloned()
            .collect(),
        query: named("queryParams", &root.query, &leaf.query)?,
        ignore_uri_case: of_case,
    })
}

fn named<N: PartialEq + Clone>(
    field: Apart,
    root: &[NamedMatch<N>],
    leaf: &[NamedMatch<N>],
) -> Result<Vec<NamedMatch<N>>, Apart> {
    let mut all = root.to_vec();
    for condition in leaf {
        match all.iter_mut().find(|known| known.name == condition.name) {
            Some(known) => {
                if let Some(joined) = text(field, Some(&known.value), Some(&condition.value))? {
                    known.value = joined;
                }
            }
            None => all.push(condition.clone()),
        }
    }
    Ok(all)
}

fn text(
    field: Apart,
    root: Option<&StringMatch>,
    leaf: Option<&StringMatch>,
) -> Result<Option<StringMatch>, Apart> {
    both(field, root, leaf, StringMatch::is_match)
}

/// One condition for both, where the one implies the other.
fn both(
    field: Apart,
    root: Option<&StringMatch>,
    leaf: Option<&StringMatch>,
    is_match: fn(&StringMatch, &str) -> bool,
) -> Result<Option<StringMatch>, Apart> {
    use StringMatch::{Exact, Prefix, Present};
    let (Some(root), Some(leaf)) = (root, leaf) else {
        return Ok(leaf.or(root).cloned());
    };
    let narrower = match (root, leaf) {
        (one, other) if one == other => one,
        (Present, one) | (one, Present) => one,
        (Exact(text), pattern) if is_match(pattern, text) => root,
        (pattern, Exact(text)) if is_match(pattern, text) => leaf,
        (Prefix(_), Prefix(long)) if is_match(root, long) => leaf,
        (Prefix(long), Prefix(_)) if is_match(leaf, long) => root,
        _ => return Err(field),
    };
    Ok(Some(narrower.clone()))
}
