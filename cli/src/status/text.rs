//! The status as text for people: what is wrong first, then objects, then proxies.

use super::{Mesh, ObjectView};
use crate::table::{self, Row, span};

/// The status as text.
pub(crate) fn render(mesh: &Mesh) -> String {
    let mut out = String::new();
    for (operator, why) in &mesh.silent {
        out.push_str(&format!(
            "operator {operator} could not be asked, its proxies are missing below: {why}\n"
        ));
    }
    for object in &mesh.unreadable {
        let (kind, namespace, name) = (&object.kind, &object.namespace, &object.name);
        out.push_str(&format!(
            "{kind} {namespace}/{name} cannot be read: {}\n",
            object.problem
        ));
    }
    for resource in &mesh.unsendable {
        out.push_str(&format!("{}: {}\n", resource.resource, resource.problem));
    }
    if !out.is_empty() {
        out.push('\n');
    }
    if mesh.objects.is_empty() {
        out.push_str("no objects\n");
    } else {
        let header = ["KIND", "NAMESPACE", "NAME", "GENERATION", "STATE", "APPLIED"];
        let rows: Vec<_> = mesh.objects.iter().map(object).collect();
        out.push_str(&table::render(header, &rows));
    }
    out.push('\n');
    if mesh.proxies.is_empty() {
        out.push_str("no proxies are connected\n");
    } else {
        let header = [
            "PROXY",
            "VERSION",
            "OPERATOR",
            "CONNECTED",
            "SUBSCRIPTIONS",
            "APPLIED",
            "WAITING",
            "REFUSED",
        ];
        let rows: Vec<_> = mesh.proxies.iter().map(proxy).collect();
        out.push_str(&table::render(header, &rows));
    }
    if !mesh.authority.is_empty() {
        out.push('\n');
        let rows: Vec<_> = mesh
            .authority
            .iter()
            .map(|(operator, says)| Row {
                cells: [operator.clone(), says.clone()],
                notes: Vec::new(),
            })
            .collect();
        out.push_str(&table::render(["OPERATOR", "CERTIFICATES"], &rows));
    }
    out
}

fn object(object: &ObjectView) -> Row<6> {
    let state = if object.accepted { "accepted" } else { "rejected" };
    Row {
        cells: [
            object.kind.clone(),
            object.namespace.clone(),
            object.name.clone(),
            object.generation.to_string(),
            state.to_owned(),
            applied(object),
        ],
        notes: object.notes.iter().cloned().collect(),
    }
}

fn applied(object: &ObjectView) -> String {
    let Some(in_force) = object.in_force else {
        return "not in force".to_owned();
    };
    let by = match object.used_by {
        0 => "no connected proxy uses it".to_owned(),
        1 => format!("applied by {} of 1 proxy", object.applied_by),
        used => format!("applied by {} of {used} proxies", object.applied_by),
    };
    if object.accepted {
        by
    } else {
        format!("generation {in_force} stays in force, {by}")
    }
}

fn proxy(proxy: &super::ProxyView) -> Row<8> {
    Row {
        cells: [
            format!("{}/{}", proxy.namespace, proxy.pod),
            proxy.version.clone(),
            proxy.operator.clone(),
            span(proxy.connected_seconds),
            proxy.subscriptions.to_string(),
            proxy.applied.to_string(),
            proxy.waiting.to_string(),
            proxy.refused.to_string(),
        ],
        notes: proxy.note.iter().cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use crate::status::join;
    use crate::status::tests::{object, replica};

    #[test]
    fn what_is_wrong_comes_first_and_notes_stand_below_their_object() {
        let mut wrong = object(2, 0, 0);
        wrong.accepted = false;
        wrong.in_force = Some(1);
        wrong.findings = vec!["spec.http[0].route: has no destination".to_owned()];
        let mut silent = replica("op-b", vec![], &[]);
        silent.status = Err("no answer".to_owned());
        silent.health = Err("no answer".to_owned());
        let mesh = join(&[replica("op-a", vec![wrong], &["web-0"]), silent], None);
        assert_eq!(
            super::render(&mesh),
            "\
operator op-b could not be asked, its proxies are missing below: no answer

KIND            NAMESPACE  NAME     GENERATION  STATE     APPLIED
VirtualService  shop       reviews  2           rejected  generation 1 stays in force, no connected proxy uses it
  spec.http[0].route: has no destination

PROXY       VERSION  OPERATOR  CONNECTED  SUBSCRIPTIONS  APPLIED  WAITING  REFUSED
shop/web-0  0.1.0    op-a      1m5s       5              5        0        0

OPERATOR  CERTIFICATES
op-a      roots in the bundle: 1; the one that signs ends in 3649 days
"
        );
    }

    #[test]
    fn an_empty_mesh_is_said_to_be_empty() {
        let text = super::render(&join(&[], None));
        assert_eq!(text, "no objects\n\nno proxies are connected\n");
    }
}
