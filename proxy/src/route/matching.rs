//! Whether the conditions of a match hold for a request. Only `route::select` calls it. Cheap conditions come first; the
//! query is looked at only where a condition asks for it.

use std::borrow::Cow;

use api::{HttpMatch, NamedMatch, StringMatch};
use http::header::HOST;

use super::Facts;

/// Whether all conditions hold. Called for each rule of a route, one after the other: what most rules do not ask for is
/// passed over in the caller's loop.
#[inline(always)]
pub(super) fn holds(wanted: &HttpMatch, facts: &Facts<'_>) -> bool {
    let HttpMatch {
        name: _,
        uri,
        method,
        authority,
        scheme,
        headers,
        without_headers,
        query,
        ignore_uri_case,
    } = wanted;
    uri.as_ref().is_none_or(|uri| match ignore_uri_case {
        true => uri.is_match_ignoring_case(facts.path),
        false => uri.is_match(facts.path),
    }) && method
        .as_ref()
        .is_none_or(|method| method.is_match(facts.method.as_str()))
        && scheme.as_ref().is_none_or(|scheme| scheme.is_match(facts.scheme))
        && authority
            .as_ref()
            .is_none_or(|wanted| facts.authority.is_some_and(|a| is_authority(wanted, a)))
        && headers.iter().all(|header| has_header(header, facts))
        && !without_headers.iter().any(|header| has_header(header, facts))
        && query
            .iter()
            .all(|parameter| facts.query.is_some_and(|q| has_parameter(parameter, q)))
}

/// Host names have no case; only an expression needs the lower-case text itself.
fn is_authority(wanted: &StringMatch, authority: &str) -> bool {
    match wanted {
        StringMatch::Regex(pattern) if authority.bytes().any(|b| b.is_ascii_uppercase()) => {
            pattern.is_match(&authority.to_ascii_lowercase())
        }
        other => other.is_match_ignoring_case(authority),
    }
}

fn has_header(wanted: &NamedMatch, facts: &Facts<'_>) -> bool {
    let meets = |value: &[u8]| match std::str::from_utf8(value) {
        Ok(value) => wanted.value.is_match(value),
        Err(_) => wanted.value == StringMatch::Present,
    };
    let mut values = facts.headers.get_all(&wanted.name).iter().peekable();
    if values.peek().is_none() && wanted.name == HOST {
        return facts
            .authority
            .is_some_and(|authority| meets(authority.as_bytes()));
    }
    values.any(|value| meets(value.as_bytes()))
}

fn has_parameter(wanted: &NamedMatch<String>, query: &str) -> bool {
    query.split('&').any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // `a=1&&b=2` has no parameter without a name between the two.
        !pair.is_empty()
            && (name == wanted.name || decoded(name) == wanted.name)
            && (wanted.value.is_match(value) || wanted.value.is_match(&decoded(value)))
    })
}

/// A part of a query as forms encode it: `+` is a space, `%xx` a byte. What decodes to no UTF-8 stays as it is.
pub(crate) fn decoded(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let hex = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16));
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(byte) = bytes.get(i) {
        i += 1;
        match (byte, hex(bytes.get(i)), hex(bytes.get(i + 1))) {
            (b'+', ..) => out.push(b' '),
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                i += 2;
            }
            (other, ..) => out.push(*other),
        }
    }
    String::from_utf8(out).map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn queries_are_decoded_as_forms_encode_them() {
        let table = [
            ("plain", "plain"),
            ("a+b", "a b"),
            ("a%20b", "a b"),
            ("%C3%A9", "é"),
            ("%c3%a9", "é"),
            ("100%", "100%"),
            ("%4", "%4"),
            ("%zz", "%zz"),
            ("%ff", "%ff"),
            ("%2B", "+"),
            ("%", "%"),
            ("", ""),
            ("é+", "é "),
        ];
        for (text, expected) in table {
            assert_eq!(decoded(text), expected, "{text}");
        }
    }

    #[test]
    fn parameters_are_found_wherever_they_stand() {
        let table = [
            ("user", StringMatch::Exact("jason".into()), "user=jason", true),
            ("user", StringMatch::Exact("jason".into()), "a=1&user=jason", true),
            (
                "user",
                StringMatch::Exact("jason".into()),
                "user=anna&user=jason",
                true,
            ),
            ("user", StringMatch::Exact("jason".into()), "user=j%61son", true),
            ("user", StringMatch::Exact("jason".into()), "us%65r=jason", true),
            ("user", StringMatch::Exact("j%61son".into()), "user=j%61son", true),
            ("user", StringMatch::Exact("jason".into()), "user=jasonb", false),
            ("user", StringMatch::Exact("jason".into()), "xuser=jason", false),
            ("user", StringMatch::Exact("a=b".into()), "user=a=b", true),
            ("user", StringMatch::Exact("".into()), "user", true),
            ("user", StringMatch::Exact("".into()), "user=", true),
            ("user", StringMatch::Present, "user", true),
            ("user", StringMatch::Present, "other", false),
            ("user", StringMatch::Present, "", false),
            ("user", StringMatch::Present, "&&", false),
            ("user", StringMatch::Prefix("a b".into()), "user=a+bc", true),
        ];
        for (name, value, query, expected) in table {
            let wanted = NamedMatch {
                name: name.to_owned(),
                value,
            };
            assert_eq!(has_parameter(&wanted, query), expected, "{wanted:?} {query}");
        }
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(text in ".*") {
            let encoded: String = text.bytes().map(|b| format!("%{b:02x}")).collect();
            prop_assert_eq!(decoded(&encoded), text);
        }
    }
}
