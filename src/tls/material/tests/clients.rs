//! Certificates of clients: demanded, allowed, refused.

use rcgen::{CertificateParams, DnType, date_time_ymd};
use rustls::{CertificateError, Error, ServerConnection};

use crate::{
    config::{ClientAuth, Pem, Tls},
    tls::{
        Material, client_subject,
        testing::{Authority, Client, Made, VERSIONS, accepting, handshake, made, settings},
    },
};

/// A listener that takes certificates of these authorities.
fn material(authorities: &[&Authority], optional: bool) -> Material {
    let ca: String = authorities.iter().map(|authority| authority.certificate.as_str()).collect();
    let client_auth = Some(ClientAuth { ca: Pem::Text(ca.into()), optional });
    let server = made(&["a.example"], |_| ());
    Material::load(&Tls { client_auth, ..settings(&[&server]) }).unwrap()
}

/// What the server makes of a client in each version: equal in both.
fn verdict(material: &Material, shows: Option<&Made>) -> Result<ServerConnection, Error> {
    let acceptor = accepting(material);
    let [first, second] = VERSIONS.map(|version| {
        handshake(&acceptor, Client::any().config(version, shows), "a.example").map(|(_, server)| server)
    });
    assert_eq!(first.as_ref().err(), second.as_ref().err());
    first
}

/// That of a client whose certificate is refused.
fn refusal(material: &Material, shows: &Made) -> CertificateError {
    let acceptor = accepting(material);
    let [first, second] = VERSIONS.map(|version| {
        match handshake(&acceptor, Client::any().config(version, Some(shows)), "a.example").unwrap_err() {
            Error::InvalidCertificate(reason) => reason,
            other => panic!("{other}"),
        }
    });
    assert_eq!(std::mem::discriminant(&first), std::mem::discriminant(&second));
    first
}

fn named(params: &mut CertificateParams) {
    params.distinguished_name.push(DnType::CommonName, "client 7");
}

#[test]
fn a_certificate_of_any_of_the_authorities_is_taken_and_tells_its_subject() {
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    for optional in [false, true] {
        let material = material(&[&one, &two], optional);
        for authority in [&one, &two] {
            let client = authority.signs(named);
            let server = verdict(&material, Some(&client)).unwrap();
            let shown = &server.peer_certificates().unwrap()[0];
            assert_eq!(*shown, client.der());
            assert_eq!(client_subject(shown).as_deref(), Some("CN=client 7"));
        }
    }
}

#[test]
fn without_a_certificate_a_client_is_served_where_it_is_optional() {
    let authority = Authority::new("one");
    let server = verdict(&material(&[&authority], true), None).unwrap();
    assert!(server.peer_certificates().is_none());
    let error = verdict(&material(&[&authority], false), None).unwrap_err();
    assert_eq!(error, Error::NoCertificatesPresented);
}

#[test]
fn a_certificate_of_another_authority_is_refused_even_where_it_is_optional() {
    // Another's name does not help.
    let (one, other, namesake) = (Authority::new("one"), Authority::new("other"), Authority::new("one"));
    for optional in [false, true] {
        let material = material(&[&one], optional);
        assert_eq!(refusal(&material, &other.signs(named)), CertificateError::UnknownIssuer);
        assert_eq!(refusal(&material, &namesake.signs(named)), CertificateError::BadSignature);
    }
}

#[test]
fn an_expired_certificate_of_a_client_is_refused() {
    let authority = Authority::new("one");
    let expired = authority.signs(|params| params.not_after = date_time_ymd(2020, 1, 1));
    for optional in [false, true] {
        let reason = refusal(&material(&[&authority], optional), &expired);
        assert!(matches!(reason, CertificateError::ExpiredContext { .. }), "{reason}");
    }
}

#[test]
fn a_policy_differs_when_the_demand_or_the_authorities_differ() {
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    let nothing = Material::load(&settings(&[&made(&["a.example"], |_| ())])).unwrap();
    let policies = [
        nothing.policy(),
        material(&[&one], false).policy(),
        material(&[&one], true).policy(),
        material(&[&two], false).policy(),
        material(&[&one, &two], false).policy(),
    ];
    for (index, policy) in policies.iter().enumerate() {
        assert!(!policies[..index].contains(policy), "{index}");
    }
    // What is asked is the same, whatever the server's certificate, the order and the repetitions.
    assert_eq!(policies[4], material(&[&two, &one, &two], false).policy());
    let other = Material::load(&settings(&[&made(&["b.example"], |_| ())])).unwrap();
    assert_eq!(policies[0], other.policy());
}
