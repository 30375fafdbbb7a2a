//! What should happen next to a StatefulSet. Pure: no IO, no async, no clock, no randomness; knows only the API's facts.
