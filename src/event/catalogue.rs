//! The catalogue: the 27 types of events and, of each, its payload and the names of its own time.
//!
//! There is one block per type, in the order and with the names of `docs/events.md`. A `String` is
//! required and not empty, and an id if its name ends in `Id`. An `Option` may be missing, null or
//! an empty string. Fields that a block does not list are ignored. A block has the current
//! version's form; `versions.rs` turns other versions into it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::address::Address;
use super::bad::Bad;
use super::changes::{Changes, UpdateRules};
use super::fields::Fields;

/// Raise it when more records can be read: a new type, a new version, a field that is read otherwise. Dead letters of the
/// class `schema` are retried then.
pub const CATALOGUE_VERSION: i32 = 1;

/// Whether a deletion erases the user's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeletionType {
    /// The account is closed. Read from `soft`, from any other text, and where the field is absent.
    Soft,
    /// The user's data is to be erased. Read from `hard`.
    Hard,
}

/// How the types of this catalogue are read, where they are more than JSON types.
impl Fields<'_> {
    /// [`DeletionType::Hard`] for `hard`, else [`DeletionType::Soft`].
    fn deletion_type(&self, name: &str) -> Result<DeletionType, Bad> {
        Ok(match self.optional_text(name)?.as_deref() {
            Some("hard") => DeletionType::Hard,
            _ => DeletionType::Soft,
        })
    }

    /// An optional whole address.
    fn optional_address(&self, name: &'static str) -> Result<Option<Address>, Bad> {
        let fields = self.optional_fields(name)?;
        fields.as_ref().map(Address::read).transpose()
    }

    /// The changed fields, with `newValues` and `oldValues`.
    fn changes(&self, name: &str, rules: &UpdateRules) -> Result<Changes, Bad> {
        Changes::read(self, name, rules)
    }
}

/// Turns each block into a variant of [`EventType`], a variant of [`Payload`], and the struct of
/// its fields. Each field names the method of [`Fields`] that reads it, and its name in the
/// payload.
macro_rules! catalogue {
    ($(
        $(#[$doc:meta])*
        $type:ident [$($time:literal),+] {
            $($field:ident: $ty:ty = $read:ident($json:literal $(, $rules:expr)?),)+
        }
    )+) => {
        /// The types of events.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EventType {
            $($(#[$doc])* $type,)+
        }

        impl EventType {
            /// All types, in the catalogue's order.
            pub const ALL: &[Self] = &[$(Self::$type),+];

            /// The type's name, without a version.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$type => stringify!($type),)+
                }
            }

            /// The type with this name, written without a version; `None` for an unknown name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($type) => Some(Self::$type),)+
                    _ => None,
                }
            }

            /// The names of the payload's own time. The first one that is given counts.
            pub(super) const fn time_fields(self) -> &'static [&'static str] {
                match self {
                    $(Self::$type => &[$($time),+],)+
                }
            }
        }

        #[cfg(test)]
        impl EventType {
            /// The names of the payload's fields that are read, without its own time.
            fn field_names(self) -> &'static [&'static str] {
                match self {
                    $(Self::$type => &[$($json),+],)+
                }
            }
        }

        /// The blocks as they are written.
        #[cfg(test)]
        const BLOCKS: &str = stringify!($($type [$($time),+] { $($field: $ty = $read($json $(, $rules)?),)+ })+);

        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq)]
            pub struct $type {
                $(
                    #[doc = concat!("`", $json, "`")]
                    pub $field: $ty,
                )+
            }
        )+

        /// What happened, by type.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Payload {
            $($(#[$doc])* $type($type),)+
            /// The type is not in the catalogue, so its payload is not read.
            Unknown,
        }

        impl Payload {
            pub(super) fn read(event_type: EventType, fields: &Fields) -> Result<Self, Bad> {
                Ok(match event_type {
                    $(EventType::$type => Self::$type($type {
                        $($field: fields.$read($json $(, $rules)?)?,)+
                    }),)+
                })
            }
        }
    };
}

catalogue! {
    // Account.

    /// A user registered.
    UserRegistered ["registrationTimestamp", "registeredAt"] {
        user_id: String = text("userId"),
        email: String = text("email"),
        username: Option<String> = optional_text("username"),
        first_name: Option<String> = optional_text("firstName"),
        last_name: Option<String> = optional_text("lastName"),
        status: String = text("status"),
        source: Option<String> = optional_text("source"),
    }

    /// A user verified an email address.
    UserEmailVerified ["verificationTimestamp"] {
        user_id: String = text("userId"),
        email: String = text("email"),
    }

    /// A user's password changed.
    UserPasswordChanged ["changeTimestamp"] {
        user_id: String = text("userId"),
        change_type: String = text("changeType"),
    }

    /// A user requested a password reset.
    UserPasswordResetRequested ["requestTimestamp"] {
        user_id: String = text("userId"),
        email: String = text("email"),
        reset_token_identifier: Option<String> = optional_text("resetTokenIdentifier"),
    }

    /// An account's status changed.
    UserAccountStatusChanged ["changeTimestamp"] {
        user_id: String = text("userId"),
        new_status: String = text("newStatus"),
        previous_status: String = text("previousStatus"),
        reason: Option<String> = optional_text("reason"),
        changed_by: Option<String> = optional_text("changedBy"),
    }

    /// Fields of an account changed.
    UserUpdated ["updateTimestamp"] {
        user_id: String = text("userId"),
        changes: Changes = changes("updatedFields", &UpdateRules::USER),
    }

    /// A user was deleted.
    UserDeleted ["deletionTimestamp"] {
        user_id: String = text("userId"),
        email: Option<String> = optional_text("email"),
        deletion_type: DeletionType = deletion_type("deletionType"),
        anonymized: Option<bool> = optional_flag("anonymized"),
    }

    // Profile.

    /// Fields of a profile changed.
    UserProfileUpdated ["updateTimestamp"] {
        user_id: String = text("userId"),
        profile_id: String = text("profileId"),
        changes: Changes = changes("updatedFields", &UpdateRules::PROFILE),
    }

    /// An address was added. If its id is known, the event replaces the whole address.
    UserAddressAdded ["addTimestamp"] {
        user_id: String = text("userId"),
        profile_id: String = text("profileId"),
        address_id: String = text("addressId"),
        address_type: String = text("addressType"),
        is_default_shipping: bool = flag("isDefaultShipping"),
        is_default_billing: bool = flag("isDefaultBilling"),
        country: String = country("country"),
        full_address: Option<Address> = optional_address("fullAddress"),
    }

    /// Fields of an address changed, or the whole address.
    UserAddressUpdated ["updateTimestamp"] {
        user_id: String = text("userId"),
        profile_id: String = text("profileId"),
        address_id: String = text("addressId"),
        changes: Changes = changes("updatedFields", &UpdateRules::ADDRESS),
        full_address: Option<Address> = optional_address("fullAddress"),
    }

    /// An address was deleted.
    UserAddressDeleted ["deleteTimestamp"] {
        user_id: String = text("userId"),
        profile_id: String = text("profileId"),
        address_id: String = text("addressId"),
    }

    /// The default addresses changed. A default whose id is absent stays as it is.
    UserProfileDefaultAddressChanged ["changeTimestamp"] {
        user_id: String = text("userId"),
        profile_id: String = text("profileId"),
        default_shipping_address_id: Option<String> = optional_text("defaultShippingAddressId"),
        default_billing_address_id: Option<String> = optional_text("defaultBillingAddressId"),
    }

    // Authentication.

    /// A user logged in.
    UserLoggedIn ["loginTimestamp"] {
        user_id: String = text("userId"),
        session_id: Option<String> = optional_text("sessionId"),
        ip_address: Option<String> = optional_text("ipAddress"),
        user_agent: Option<String> = optional_text("userAgent"),
        mfa_verified: Option<bool> = optional_flag("mfaVerified"),
    }

    /// A login failed.
    UserLoginFailed ["failureTimestamp"] {
        attempted_email: Option<String> = optional_text("attemptedEmail"),
        attempted_username: Option<String> = optional_text("attemptedUsername"),
        attempted_user_id: Option<String> = optional_text("attemptedUserId"),
        reason: String = text("reason"),
        ip_address: Option<String> = optional_text("ipAddress"),
        user_agent: Option<String> = optional_text("userAgent"),
    }

    /// A user logged out.
    UserLoggedOut ["logoutTimestamp"] {
        user_id: String = text("userId"),
        session_id: Option<String> = optional_text("sessionId"),
        revoked_token_jtis: Option<Vec<Value>> = optional_array("revokedTokenJtis"),
    }

    /// Multi-factor authentication was enabled or disabled.
    MfaStatusChanged ["changeTimestamp"] {
        user_id: String = text("userId"),
        mfa_enabled: bool = flag("mfaEnabled"),
        mfa_method: Option<String> = optional_text("mfaMethod"),
        changed_by: Option<String> = optional_text("changedBy"),
    }

    /// A challenge for a user's second factor failed.
    MfaChallengeFailed ["failureTimestamp"] {
        user_id: String = text("userId"),
        mfa_method: Option<String> = optional_text("mfaMethod"),
        ip_address: Option<String> = optional_text("ipAddress"),
        user_agent: Option<String> = optional_text("userAgent"),
    }

    // Roles and permissions.

    /// A role was created.
    RoleCreated ["creationTimestamp"] {
        role_id: String = text("roleId"),
        role_name: String = text("roleName"),
        description: Option<String> = optional_text("description"),
        created_by: String = text("createdBy"),
        initial_permission_ids: Option<Vec<String>> = optional_ids("initialPermissionIds"),
    }

    /// Fields of a role changed.
    RoleUpdated ["updateTimestamp"] {
        role_id: String = text("roleId"),
        changes: Changes = changes("updatedFields", &UpdateRules::ROLE),
        updated_by: String = text("updatedBy"),
    }

    /// A role was deleted.
    RoleDeleted ["deletionTimestamp"] {
        role_id: String = text("roleId"),
        role_name: String = text("roleName"),
        deleted_by: String = text("deletedBy"),
    }

    /// A user got a role.
    UserRoleAssigned ["assignmentTimestamp"] {
        user_id: String = text("userId"),
        role_id: String = text("roleId"),
        role_name: String = text("roleName"),
        assigned_by: String = text("assignedBy"),
    }

    /// A user lost a role.
    UserRoleRemoved ["removalTimestamp"] {
        user_id: String = text("userId"),
        role_id: String = text("roleId"),
        role_name: String = text("roleName"),
        removed_by: String = text("removedBy"),
    }

    /// A permission was created.
    PermissionCreated ["creationTimestamp"] {
        permission_id: String = text("permissionId"),
        permission_name: String = text("permissionName"),
        action: Option<String> = optional_text("action"),
        subject: Option<String> = optional_text("subject"),
        description: Option<String> = optional_text("description"),
        created_by: String = text("createdBy"),
    }

    /// Fields of a permission changed.
    PermissionUpdated ["updateTimestamp"] {
        permission_id: String = text("permissionId"),
        changes: Changes = changes("updatedFields", &UpdateRules::PERMISSION),
        updated_by: String = text("updatedBy"),
    }

    /// A permission was deleted.
    PermissionDeleted ["deletionTimestamp"] {
        permission_id: String = text("permissionId"),
        permission_name: String = text("permissionName"),
        deleted_by: String = text("deletedBy"),
    }

    /// A role got a permission.
    PermissionAssignedToRole ["assignmentTimestamp"] {
        role_id: String = text("roleId"),
        permission_id: String = text("permissionId"),
        permission_name: String = text("permissionName"),
        assigned_by: String = text("assignedBy"),
    }

    /// A role lost a permission.
    PermissionRemovedFromRole ["removalTimestamp"] {
        role_id: String = text("roleId"),
        permission_id: String = text("permissionId"),
        permission_name: String = text("permissionName"),
        removed_by: String = text("removedBy"),
    }
}

impl Payload {
    /// See [`Event::user_id`](super::Event::user_id).
    pub(super) fn user_id(&self) -> Option<&str> {
        match self {
            Self::UserRegistered(p) => Some(&p.user_id),
            Self::UserEmailVerified(p) => Some(&p.user_id),
            Self::UserPasswordChanged(p) => Some(&p.user_id),
            Self::UserPasswordResetRequested(p) => Some(&p.user_id),
            Self::UserAccountStatusChanged(p) => Some(&p.user_id),
            Self::UserUpdated(p) => Some(&p.user_id),
            Self::UserDeleted(p) => Some(&p.user_id),
            Self::UserProfileUpdated(p) => Some(&p.user_id),
            Self::UserAddressAdded(p) => Some(&p.user_id),
            Self::UserAddressUpdated(p) => Some(&p.user_id),
            Self::UserAddressDeleted(p) => Some(&p.user_id),
            Self::UserProfileDefaultAddressChanged(p) => Some(&p.user_id),
            Self::UserLoggedIn(p) => Some(&p.user_id),
            Self::UserLoginFailed(p) => p.attempted_user_id.as_deref(),
            Self::UserLoggedOut(p) => Some(&p.user_id),
            Self::MfaStatusChanged(p) => Some(&p.user_id),
            Self::MfaChallengeFailed(p) => Some(&p.user_id),
            Self::UserRoleAssigned(p) => Some(&p.user_id),
            Self::UserRoleRemoved(p) => Some(&p.user_id),
            Self::RoleCreated(_)
            | Self::RoleUpdated(_)
            | Self::RoleDeleted(_)
            | Self::PermissionCreated(_)
            | Self::PermissionUpdated(_)
            | Self::PermissionDeleted(_)
            | Self::PermissionAssignedToRole(_)
            | Self::PermissionRemovedFromRole(_)
            | Self::Unknown => None,
        }
    }
}

impl UserAddressAdded {
    /// The whole address. If `fullAddress` has no country, it has the payload's.
    pub fn address(&self) -> Address {
        let mut address = self.full_address.clone().unwrap_or_default();
        address.country.get_or_insert_with(|| self.country.clone());
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::versions::UPCASTERS;
    use crate::event::{Envelope, Record, hash16};

    /// Teams that publish events read `docs/events.md`, so it names all that this code reads.
    #[test]
    fn the_document_has_every_type_with_its_fields_and_an_example() {
        let document = include_str!("../../docs/events.md");
        let (_, examples) = document.split_once("```jsonl\n").expect("the examples");
        let mut examples = examples.lines();
        for event_type in EventType::ALL {
            let name = event_type.as_str();
            let begin = format!("| {name} |");
            let row = document.lines().find(|line| line.starts_with(&begin));
            let row = row.unwrap_or_else(|| panic!("{name} is not in the table"));
            for field in event_type
                .field_names()
                .iter()
                .chain(event_type.time_fields())
            {
                assert!(row.contains(field), "{name}: {field} is not in the table");
            }
            let example: Value =
                serde_json::from_str(examples.next().unwrap_or_default()).expect(name);
            assert_eq!(example["eventType"], name);
            let mut body = example.clone();
            body["eventId"] = "e-1".into();
            let record = Record {
                topic: "user.events".into(),
                partition: 0,
                offset: 0,
                timestamp_ms: None,
                key: None,
                headers: Vec::new(),
                value: Some(body.to_string().into_bytes().into()),
            };
            let event = Envelope::read(&record).and_then(|envelope| envelope.decode());
            assert!(event.is_ok(), "{name}: {event:?}");
            for (field, _) in example["payload"].as_object().expect("an object") {
                assert!(
                    row.contains(field.as_str()),
                    "{name}: {field} is not in the table"
                );
            }
        }
        assert_eq!(examples.next(), Some("```"));
    }

    /// The catalogue, and what turns other versions into it, by the catalogue's version.
    #[test]
    fn the_catalogue_changes_with_its_version() {
        let mut shape: String = BLOCKS.split_whitespace().collect();
        for upcaster in UPCASTERS {
            shape.push_str(&format!("{:?} {}", upcaster.event_type, upcaster.version));
        }
        let pinned = (CATALOGUE_VERSION, hash16(shape.as_bytes()).to_string());
        assert_eq!(
            pinned,
            (1, "5fbb6cca-c559-70e0-35ac-7e33ac4b3f0e".to_owned()),
            "raise CATALOGUE_VERSION if more records can be read now, and pin the new shape"
        );
    }
}
