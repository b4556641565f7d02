//! Hauberk on the cluster, in the order in which it is played: installed, used, disturbed, upgraded and uninstalled. Each
//! trial finds the cluster as the one before left it.

mod install;
mod lessons;
mod operator;
mod optouts;
mod rollouts;
mod routing;
mod shop;
mod tools;

use std::time::Duration;

use libtest_mimic::Trial;
use tests::cluster::trial;

/// Within this, what was changed must be so.
const SOON: Duration = Duration::from_secs(60);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "mesh::helm_installs_it_and_both_replicas_become_ready",
            install::install,
        ),
        trial("mesh::check_is_green_after_the_installation", install::check),
        trial(
            "mesh::pods_speak_mutual_tls_and_probes_pass_under_strict",
            routing::pods_join,
        ),
        trial(
            "mesh::a_split_and_its_edit_and_its_status",
            routing::split_and_edit,
        ),
        trial(
            "mesh::a_broken_object_is_refused_with_its_field",
            routing::broken_is_refused,
        ),
        trial(
            "mesh::one_that_slips_past_is_marked_and_harms_nothing",
            routing::broken_slips_past,
        ),
        trial("mesh::check_is_green_with_pods_in_the_mesh", install::check),
        trial(
            "mesh::restart_scaling_and_eviction_lose_no_request",
            rollouts::restart_scale_drain,
        ),
        trial("mesh::a_job_completes_and_its_first_call_succeeds", rollouts::job),
        trial(
            "mesh::operator_pods_that_go_lose_no_request",
            operator::pods_deleted,
        ),
        trial(
            "mesh::an_api_server_that_restarts_loses_no_request",
            operator::api_server_restarted,
        ),
        trial("mesh::a_pod_that_opts_out_has_no_proxy", optouts::excluded_pod),
        trial(
            "mesh::an_excluded_port_bypasses_the_proxy",
            optouts::excluded_port,
        ),
        trial(
            "mesh::a_pod_on_the_network_of_its_host_has_no_proxy",
            optouts::host_network,
        ),
        trial(
            "mesh::a_pod_without_network_rights_says_so",
            optouts::no_network_rights,
        ),
        trial(
            "mesh::a_wrong_annotation_is_refused_by_name",
            optouts::wrong_annotation,
        ),
        trial(
            "mesh::field_lesson_pods_of_a_stateful_set_are_reached_by_name",
            lessons::stateful_set,
        ),
        trial(
            "mesh::field_lesson_the_webhook_is_no_deadlock",
            lessons::no_deadlock,
        ),
        trial(
            "mesh::field_lesson_a_root_is_replaced_under_load",
            lessons::root_rotation,
        ),
        trial("mesh::field_lesson_an_operator_holds_little", lessons::memory),
        trial(
            "mesh::an_upgrade_and_a_rollback_lose_no_request",
            operator::upgrade_and_rollback,
        ),
        trial("mesh::after_the_uninstallation_pods_go_on", operator::uninstall),
    ]
}
