//! The feed of address changes: the entries that an event makes, and which of them are significant.

use serde_json::{Value, json};

use super::addresses::{Address, Addresses, DEFAULT_IDS};
use super::event::Event;
use super::instant;

/// The default address of one kind when it was last known.
#[derive(Debug, Default, Clone, PartialEq)]
pub enum LastInUse {
    #[default]
    Never,
    Had {
        address_id: String,
        /// The value of each of [`FIELDS`], and whether it is stale.
        fields: Vec<(Option<String>, bool)>,
    },
    Deleted,
}

/// The fields on which the route of a parcel depends.
const FIELDS: [&str; 5] = [
    "country",
    "stateOrProvince",
    "postalCode",
    "city",
    "streetLine1",
];

/// The entries that an event makes, given the addresses before and after it; without cursors.
pub fn entries(
    user: &str,
    event: &Event,
    before: &Addresses,
    after: &Addresses,
    memory: &mut [LastInUse; 2],
) -> Vec<Value> {
    let significant = [0, 1].map(|kind| judge(event, before, after, kind, &mut memory[kind]));
    let entry = |id: &str, kind: &str, affects: [bool; 2], significant: bool, was, is| {
        let mut entry = json!({
            "userId": user, "addressId": id, "kind": kind, "significant": significant,
            "affectsDefaultShipping": affects[0], "affectsDefaultBilling": affects[1],
            "occurredAt": instant(event.occurred_at), "eventId": event.id,
        });
        for (name, address) in [("before", was), ("after", is)] {
            if let Some(address) = address {
                entry[name] = address;
            }
        }
        entry
    };
    let kind = match event.name {
        "UserAddressAdded" => "added",
        "UserAddressUpdated" => "updated",
        "UserAddressDeleted" => "deleted",
        "UserProfileDefaultAddressChanged" => {
            let moved = (0..2).filter(|kind| before.defaults[*kind] != after.defaults[*kind]);
            let moves = moved.map(|kind| {
                let id = event.text(DEFAULT_IDS[kind]).expect("it moved");
                let was = before.defaults[kind].as_ref();
                let was = was.and_then(|id| before.json(id));
                let affects = [kind == 0, kind == 1];
                entry(
                    &id,
                    "default_changed",
                    affects,
                    significant[kind],
                    was,
                    after.json(&id),
                )
            });
            return moves.collect();
        }
        _ => return Vec::new(),
    };
    let id = event.text("addressId").expect("required");
    let (was, is) = (before.json(&id), after.json(&id));
    if without_time(was.clone()) == without_time(is.clone()) {
        return Vec::new();
    }
    let affects = [0, 1].map(|kind| {
        [before, after]
            .iter()
            .any(|state| state.in_use(kind).is_some_and(|(used, _)| *used == id))
    });
    let significant = significant[0] || significant[1];
    vec![entry(&id, kind, affects, significant, was, is)]
}

fn without_time(mut address: Option<Value>) -> Option<Value> {
    if let Some(Value::Object(address)) = &mut address {
        address.remove("updatedAt");
    }
    address
}

/// Whether the event changes the address that unshipped orders would use.
fn judge(
    event: &Event,
    before: &Addresses,
    after: &Addresses,
    kind: usize,
    memory: &mut LastInUse,
) -> bool {
    let Some((id, address)) = after.in_use(kind) else {
        let taken_away = before.in_use(kind).is_some_and(|(id, _)| {
            event.name != "UserProfileDefaultAddressChanged"
                && event.text("addressId").as_ref() == Some(id)
        });
        if taken_away {
            *memory = LastInUse::Deleted;
        }
        return taken_away;
    };
    let now = fields(address);
    let significant = match &*memory {
        LastInUse::Never => false,
        LastInUse::Deleted => true,
        LastInUse::Had { address_id, fields } => {
            let differs = fields
                .iter()
                .zip(&now)
                .any(|((then, was_stale), (now, is_stale))| then != now || *is_stale && !was_stale);
            address_id != id || differs
        }
    };
    *memory = LastInUse::Had {
        address_id: id.clone(),
        fields: now,
    };
    significant
}

fn fields(address: &Address) -> Vec<(Option<String>, bool)> {
    let field = |name| {
        let value = address.fields.get(name).map(str::to_owned);
        (value, address.fields.is_stale(name))
    };
    FIELDS.map(field).to_vec()
}
