//! The tiers that an ordinary user can have, by the checks that hold for every tier.

mod support;

macro_rules! behaviours {
    ($tier:expr => $($name:ident)*) => {
        $(#[tokio::test]
        async fn $name() {
            crate::support::checks::$name($tier).await;
        })*
    };
}

macro_rules! every_tier {
    ($tier:expr) => {
        behaviours! { $tier =>
            an_exit_code_is_told
            a_signal_that_ended_it_is_told
            output_becomes_log_lines
            a_burst_of_output_loses_no_line
            the_program_has_its_variables_and_folder
            kill_ends_everything_and_returns_when_it_has
            a_program_that_ignores_sigterm_goes_on
            what_forked_itself_away_ends_with_the_container
            a_daemon_that_died_finds_its_containers
            an_end_while_no_daemon_lived_is_found
            a_killed_shim_takes_its_container_along
            a_shim_killed_while_no_daemon_lived_is_settled
            a_pod_is_not_released_while_it_lives
            the_same_start_twice_is_one_start
            a_command_that_is_none_fails_to_start
            a_machine_that_was_started_anew_has_no_containers
            each_pod_has_an_address_for_life
            a_program_can_be_run_inside
            a_program_inside_can_have_a_terminal
            a_program_inside_that_is_none_is_refused
            a_program_inside_ends_with_its_session_and_with_its_container
        }
    };
}

mod processes {
    every_tier! { stead_node::runtime::Tier::Processes }
}

mod rootless {
    every_tier! { stead_node::runtime::Tier::Rootless }
}
