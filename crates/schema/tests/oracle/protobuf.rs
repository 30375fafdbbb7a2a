//! Every recorded protobuf body decodes to the JSON that was recorded beside it.

use serde_json::Value;
use stead_schema::protobuf;

use crate::recorded;

#[test]
fn every_fixture_decodes_to_its_json() {
    let folder = recorded::folder().join("protobuf");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; STEAD_ORACLE names the oracle's folder",
            folder.display()
        )
    });
    let (mut passed, mut failed) = (0, Vec::new());
    for path in entries
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|of| of == "pb"))
    {
        let want: Value = serde_json::from_slice(
            &std::fs::read(path.with_extension("json")).expect("each body has its JSON"),
        )
        .expect("it is JSON");
        let bytes = std::fs::read(&path).expect("it can be read");
        // A watch event's envelope says no kind.
        let got = if want.get("kind").is_some() {
            protobuf::decode(&bytes)
        } else {
            protobuf::decode_as(&bytes, "v1", "WatchEvent")
        };
        match got {
            Ok(got) if got == want => passed += 1,
            Ok(got) => failed.push(format!("{}\n want {want}\n got  {got}", path.display())),
            Err(error) => failed.push(format!("{}: {error}", path.display())),
        }
        for cut in 0..bytes.len() {
            let _ = protobuf::decode(&bytes[..cut]);
        }
    }
    assert!(
        failed.is_empty(),
        "{passed} passed, {} failed: {}",
        failed.len(),
        failed.join("\n")
    );
    assert!(
        passed >= 70,
        "only {passed} fixtures were found in {}",
        folder.display()
    );
}
