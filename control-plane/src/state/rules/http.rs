//! One HTTP rule of a VirtualService, in the contract's types.

use std::collections::BTreeMap;

use api::{DirectResponse, Fraction, HeaderChanges, HttpMatch, Invalid, Redirect, Rewrite, proto};
use base64::Engine as _;
use crds::string_match::Pattern;
use crds::virtual_service::http as crd;
use crds::virtual_service::{Destination, HttpRouteDestination, matching, resilience};

use super::{
    ActionTemplate, Delegation, Filter, ForwardTemplate, HttpTemplate, MirrorTemplate, ObjectName, Share,
    check_sum, cors, fault, only_gateways, port_number, refuse, retry, target, weight, whole_ms,
};

/// The rule, ready but for proxy and port.
pub(super) fn template(rule: &crd::HttpRoute, namespace: &str) -> Result<HttpTemplate, Invalid> {
    let crd::HttpRoute {
        name,
        r#match,
        route,
        redirect,
        direct_response,
        delegate,
        rewrite,
        timeout,
        retries,
        fault,
        mirror,
        mirrors,
        mirror_percent,
        mirror_percentage,
        cors_policy,
        headers,
    } = rule;
    let mut blocks = Vec::with_capacity(r#match.len());
    for (i, block) in r#match.iter().enumerate() {
        blocks.push(condition(block).map_err(|e| e.under(&format!("match[{i}]")))?);
    }
    let action = match (redirect, direct_response) {
        (Some(redirect), _) => self::redirect(redirect).map_err(|e| e.under("redirect"))?,
        (None, Some(direct)) => {
            ActionTemplate::Direct(self::direct(direct).map_err(|e| e.under("directResponse"))?)
        }
        (None, None) => {
            let forward = ForwardTemplate {
                shares: match delegate {
                    Some(_) => Vec::new(),
                    None => shares(route, namespace)?,
                },
                timeout: timeout.map(|t| whole_ms(t.get())),
                retry: retries
                    .as_ref()
                    .map(retry::retry)
                    .transpose()
                    .map_err(|e| e.under("retries"))?,
                rewrite: rewrite
                    .as_ref()
                    .map(self::rewrite)
                    .transpose()
                    .map_err(|e| e.under("rewrite"))?,
                fault: fault
                    .as_ref()
                    .map(fault::fault)
                    .transpose()
                    .map_err(|e| e.under("fault"))?,
                mirrors: match mirror {
                    Some(mirror) => {
                        let share = fault::share(mirror_percentage.as_ref(), *mirror_percent, Fraction::ALL);
                        only_mirror(mirror, share.map_err(|e| e.under("mirror"))?, namespace)?
                    }
                    None => self::mirrors(mirrors, namespace)?,
                },
            };
            match delegate {
                Some(delegate) => delegation(delegate, forward, namespace)?,
                None => ActionTemplate::Forward(Box::new(forward)),
            }
        }
    };
    let answered = redirect.is_some() || direct_response.is_some();
    refuse(&[
        ("delegate", delegate.is_some() && (answered || !route.is_empty())),
        ("fault", fault.is_some() && answered),
        ("mirror", mirror.is_some() && answered),
        ("mirrors", !mirrors.is_empty() && (answered || mirror.is_some())),
    ])?;
    let (request_headers, response_headers) = changes(headers.as_ref())?;
    let cors = cors_policy.as_ref().map(cors::policy).transpose();
    Ok(HttpTemplate {
        name: name.clone().unwrap_or_default(),
        blocks,
        action,
        request_headers,
        response_headers,
        cors: cors.map_err(|e| e.under("corsPolicy"))?.map(Box::new),
    })
}

fn delegation(
    delegate: &crd::Delegate,
    forward: ForwardTemplate,
    namespace: &str,
) -> Result<ActionTemplate, Invalid> {
    let crd::Delegate {
        name,
        namespace: given,
    } = delegate;
    let Some(name) = name.as_ref().filter(|name| !name.is_empty()) else {
        return Err(Invalid::new(
            "delegate.name",
            "is required: name a VirtualService",
        ));
    };
    let namespace = given.as_deref().filter(|ns| !ns.is_empty()).unwrap_or(namespace);
    let ForwardTemplate {
        shares: _,
        timeout,
        retry,
        rewrite,
        fault,
        mirrors,
    } = forward;
    Ok(ActionTemplate::Delegate(Box::new(Delegation {
        to: ObjectName::new(namespace, name),
        timeout,
        retry,
        rewrite,
        fault,
        mirrors,
    })))
}

fn condition(block: &matching::HttpMatch) -> Result<(Filter, HttpMatch), Invalid> {
    let matching::HttpMatch {
        name,
        uri,
        scheme,
        method,
        authority,
        headers,
        without_headers,
        query_params,
        port,
        source_labels,
        source_namespace,
        gateways,
        ignore_uri_case,
        stat_prefix,
    } = block;
    refuse(&[
        ("statPrefix", stat_prefix.is_some()),
        ("gateways", only_gateways(gateways)),
    ])?;
    let filter = Filter::new(*port, source_namespace.as_ref(), source_labels)?;
    // The proxy compares authority and scheme in lower case, as they mean the same in any.
    let condition = proto::HttpMatch {
        name: name.clone().unwrap_or_default(),
        uri: one("uri", uri.as_ref(), str::to_owned)?,
        method: one("method", method.as_ref(), str::to_owned)?,
        authority: one("authority", authority.as_ref(), str::to_ascii_lowercase)?,
        scheme: one("scheme", scheme.as_ref(), str::to_ascii_lowercase)?,
        headers: named("headers", headers)?,
        without_headers: named("withoutHeaders", without_headers)?,
        query: named("queryParams", query_params)?,
        ignore_uri_case: *ignore_uri_case == Some(true),
    };
    Ok((filter, HttpMatch::try_from(condition)?))
}

fn one(
    field: &str,
    text: Option<&crds::StringMatch>,
    spelling: fn(&str) -> String,
) -> Result<Option<proto::StringMatch>, Invalid> {
    text.map(|text| string_match(field, text, spelling)).transpose()
}

fn named(
    field: &str,
    conditions: &BTreeMap<String, crds::StringMatch>,
) -> Result<Vec<proto::NamedMatch>, Invalid> {
    let each = conditions.iter().map(|(name, text)| {
        Ok(proto::NamedMatch {
            name: name.clone(),
            value: Some(string_match(&format!("{field}.{name}"), text, str::to_owned)?),
        })
    });
    each.collect()
}

pub(super) fn string_match(
    field: &str,
    text: &crds::StringMatch,
    spelling: fn(&str) -> String,
) -> Result<proto::StringMatch, Invalid> {
    use proto::string_match::Pattern as Pb;
    let pattern = match text.pattern() {
        Some(Pattern::Exact(text)) => Pb::Exact(spelling(text)),
        Some(Pattern::Prefix(text)) => Pb::Prefix(spelling(text)),
        Some(Pattern::Regex(text)) => Pb::Regex(text.to_owned()),
        Some(Pattern::Present) => Pb::Present(true),
        None => {
            return Err(Invalid::new(
                field,
                "has several of exact, prefix and regex: keep one",
            ));
        }
    };
    Ok(proto::StringMatch {
        pattern: Some(pattern),
    })
}

fn shares(route: &[HttpRouteDestination], namespace: &str) -> Result<Vec<Share>, Invalid> {
    let share = |(i, to): (usize, &HttpRouteDestination)| {
        let HttpRouteDestination {
            destination,
            weight: given,
            headers,
        } = to;
        let under = |e: Invalid| e.under(&format!("route[{i}]"));
        let (request_headers, response_headers) = changes(headers.as_ref()).map_err(under)?;
        Ok(Share {
            target: target(destination, namespace).map_err(|e| under(e.under("destination")))?,
            weight: weight(*given, route.len()).map_err(under)?,
            request_headers,
            response_headers,
        })
    };
    let shares = route
        .iter()
        .enumerate()
        .map(share)
        .collect::<Result<Vec<_>, Invalid>>()?;
    check_sum(&shares)?;
    Ok(shares)
}

fn mirrors(mirrors: &[resilience::Mirror], namespace: &str) -> Result<Vec<MirrorTemplate>, Invalid> {
    let mut templates = Vec::with_capacity(mirrors.len());
    for (i, mirror) in mirrors.iter().enumerate() {
        let resilience::Mirror {
            destination,
            percentage,
        } = mirror;
        let share = fault::share(percentage.as_ref(), None, Fraction::ALL);
        let share = share.map_err(|e| e.under(&format!("mirrors[{i}]")))?;
        let field = format!("mirrors[{i}].destination");
        templates.push(one_mirror(field, destination, share, namespace)?);
    }
    Ok(templates)
}

fn only_mirror(
    mirror: &Destination,
    share: Fraction,
    namespace: &str,
) -> Result<Vec<MirrorTemplate>, Invalid> {
    Ok(vec![one_mirror("mirror".to_owned(), mirror, share, namespace)?])
}

/// Also one that no request is copied to: it is said, so that nothing else counts in its place.
fn one_mirror(
    field: String,
    destination: &Destination,
    share: Fraction,
    namespace: &str,
) -> Result<MirrorTemplate, Invalid> {
    let target = target(destination, namespace).map_err(|e| e.under(&field))?;
    Ok(MirrorTemplate { field, target, share })
}

fn rewrite(rewrite: &crd::Rewrite) -> Result<Rewrite, Invalid> {
    let crd::Rewrite {
        uri,
        authority,
        uri_regex_rewrite,
    } = rewrite;
    let uri_regex = uri_regex_rewrite.as_ref().map(|regex| {
        let crd::RegexRewrite { r#match, rewrite } = regex;
        proto::RegexRewrite {
            pattern: r#match.clone().unwrap_or_default(),
            replacement: rewrite.clone().unwrap_or_default(),
        }
    });
    Rewrite::try_from(proto::Rewrite {
        uri: uri.clone().unwrap_or_default(),
        authority: authority.clone().unwrap_or_default(),
        uri_regex,
    })
}

fn redirect(redirect: &crd::Redirect) -> Result<ActionTemplate, Invalid> {
    let crd::Redirect {
        uri,
        authority,
        scheme,
        redirect_code,
        prefix_rewrite,
        port,
        derive_port,
    } = redirect;
    let port = port.map(|p| port_number("port", p)).transpose()?;
    Ok(ActionTemplate::Redirect {
        redirect: Redirect::try_from(proto::Redirect {
            uri: uri.clone().unwrap_or_default(),
            authority: authority.clone().unwrap_or_default(),
            scheme: scheme.clone().unwrap_or_default(),
            port: port.map_or(0, u32::from),
            status: redirect_code.unwrap_or(0),
            prefix_rewrite: prefix_rewrite.clone().unwrap_or_default(),
        })?,
        to_own_port: port.is_none() && *derive_port == Some(crd::DerivePort::FromRequestPort),
    })
}

fn direct(direct: &crd::DirectResponse) -> Result<DirectResponse, Invalid> {
    let crd::DirectResponse { status, body } = direct;
    let body = match body {
        None => Vec::new(),
        Some(crd::Body {
            string: Some(text),
            bytes: None,
        }) => text.clone().into_bytes(),
        Some(crd::Body {
            string: None,
            bytes: Some(text),
        }) => base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|e| Invalid::new("body.bytes", format!("is not base64: {e}")))?,
        Some(
            crd::Body {
                string: None,
                bytes: None,
            }
            | crd::Body {
                string: Some(_),
                bytes: Some(_),
            },
        ) => {
            return Err(Invalid::new("body", "needs one of string and bytes"));
        }
    };
    DirectResponse::try_from(proto::DirectResponse {
        status: *status,
        body,
    })
}

/// Changes of requests and of responses.
fn changes(headers: Option<&crd::Headers>) -> Result<(HeaderChanges, HeaderChanges), Invalid> {
    let Some(crd::Headers { request, response }) = headers else {
        return Ok(Default::default());
    };
    Ok((
        direction(request.as_ref()).map_err(|e| e.under("headers.request"))?,
        direction(response.as_ref()).map_err(|e| e.under("headers.response"))?,
    ))
}

fn direction(changes: Option<&crd::HeaderChanges>) -> Result<HeaderChanges, Invalid> {
    let Some(crd::HeaderChanges { set, add, remove }) = changes else {
        return Ok(HeaderChanges::default());
    };
    let list = |headers: &BTreeMap<String, String>| {
        let pb = |(name, value): (&String, &String)| proto::Header {
            name: name.clone(),
            value: value.clone(),
        };
        headers.iter().map(pb).collect()
    };
    HeaderChanges::try_from(proto::HeaderChanges {
        set: list(set),
        add: list(add),
        remove: remove.clone(),
    })
}
