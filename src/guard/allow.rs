//! The words and built-in functions after which a server connection is as it was before: what may
//! stand before a parenthesis in a harmless statement. A name that is not here is not harmless.
//!
//! Left out on purpose: `set_config` and `setseed` (settings), `currval`, `lastval` and `setval`
//! (sequence state of the session), and what runs SQL from a string (`query_to_xml`, `dblink`).

use std::cmp::Ordering;

/// Whether a word before `(` is SQL's own and calls nothing.
pub(super) fn is_construct(word: &[u8]) -> bool {
    CONSTRUCTS.get(word.len()).is_some_and(|words| contains(words, word))
}

/// Whether a name before `(` is a function or type of PostgreSQL's own that leaves nothing behind
/// in the session. Functions that take a lock for the transaction only are here, and `nextval`,
/// which every serial column calls.
pub(super) fn is_harmless_function(name: &[u8]) -> bool {
    FUNCTIONS.get(name.len()).is_some_and(|names| contains(names, name))
}

/// Whether a function runs SQL that it is given as text: what it runs cannot be seen from here.
/// PostgreSQL's own, and those of `tablefunc` and `xml2`.
pub(super) fn runs_sql(name: &[u8]) -> bool {
    matches!(
        name,
        b"query_to_xml"
            | b"query_to_xmlschema"
            | b"query_to_xml_and_xmlschema"
            | b"ts_stat"
            | b"ts_rewrite"
            | b"crosstab"
            | b"crosstab2"
            | b"crosstab3"
            | b"crosstab4"
            | b"crosstab_hash"
            | b"connectby"
            | b"xpath_table"
    )
}

/// Whether the session must know of a call, wherever it stands.
pub(super) fn concerns_session(name: &[u8]) -> bool {
    let watched: [&[u8]; 2] = [b"set_config", b"pg_"];
    watched.iter().any(|start| name.starts_with(start)) || runs_sql(name)
}

/// Binary search among names of one length, in order, one blank apart: a fixed stride makes a
/// readable list searchable without an index beside it.
fn contains(names: &str, name: &[u8]) -> bool {
    let stride = name.len() + 1;
    let (mut low, mut high) = (0, names.len().div_ceil(stride));
    while low < high {
        let middle = low.midpoint(high);
        let start = middle * stride;
        let Some(found) = names.as_bytes().get(start..start + name.len()) else { return false };
        match found.cmp(name) {
            Ordering::Equal => return true,
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
        }
    }
    false
}

/// By length, from none to the longest; each line in order.
const CONSTRUCTS: [&str; 10] = [
    "",
    "",
    "as by in on or to",
    "all and any not row set",
    "case cube else from join like only some then when with",
    "array group ilike limit union using where",
    "escape except exists having offset rollup select values",
    "between lateral",
    "distinct operator",
    "intersect partition returning symmetric",
];

/// Likewise.
const FUNCTIONS: [&str; 35] = [
    "",
    "",
    "ln pi",
    "abs age avg bit box chr cos cot dec div erf exp gcd lag lcm log max md5 min mod now oid \
     pow sin sum tan xml",
    "acos area asin atan bool cast cbrt ceil char cidr corr cosd cosh cotd date erfc host inet \
     int2 int4 int8 json lead left line lpad lseg mode name path rank rpad sign sind sinh sqrt \
     tand tanh text time trim user uuid",
    "acosd acosh ascii asind asinh atan2 atand atanh btrim bytea count crc32 every float floor \
     gamma least log10 lower ltrim money ntile point popen power right round rtrim scale slope \
     strip trunc upper width xmlpi xpath",
    "abbrev atan2d bit_or bpchar center circle concat crc32c decode encode family float4 float8 \
     format height isopen isperp length lgamma nullif pclose radius random repeat sha224 sha256 \
     sha384 sha512 stddev strpos substr timetz to_bin to_hex to_oct unistr unnest uuidv4 uuidv7 \
     varbit xmlagg",
    "bit_and bit_xor bool_or ceiling convert decimal degrees extract get_bit initcap isempty \
     macaddr masklen netmask network nextval npoints numeric numnode overlay polygon radians \
     regr_r2 replace reverse set_bit to_char to_date to_json ts_rank tsrange var_pop varchar \
     varying version xmlroot xmltext",
    "bool_and casefold coalesce date_add date_bin diagonal diameter get_byte greatest grouping \
     hostmask interval isclosed isfinite json_agg macaddr8 numrange overlaps pg_sleep position \
     regr_sxx regr_sxy regr_syy set_byte timezone to_ascii to_jsonb var_samp variance xmlparse",
    "any_value array_agg array_cat bit_count broadcast character concat_ws covar_pop cume_dist \
     date_part daterange enum_last factorial int4range int8range json_each jsonb_agg jsonb_set \
     localtime lower_inc lower_inf make_date make_time min_scale normalize nth_value num_nulls \
     pg_typeof range_agg regr_avgx regr_avgy setweight substring timeofday timestamp to_number \
     translate ts_delete ts_filter tstzrange upper_inc upper_inf xmlconcat xmlexists xmlforest",
    "array_dims array_fill array_sort bit_length convert_to covar_samp date_trunc dense_rank \
     enum_first enum_range inet_merge isparallel isvertical json_array json_query json_value \
     jsonb_each last_value multirange regr_count regr_slope row_number split_part stddev_pop \
     string_agg to_regoper to_regproc to_regrole to_regtype to_tsquery trim_array trim_scale \
     ts_rank_cd xmlcomment xmlelement",
    "array_lower array_ndims array_upper cardinality char_length first_value format_type \
     json_exists json_object json_scalar json_typeof parse_ident pg_get_expr quote_ident \
     range_merge regexp_like row_to_json set_masklen starts_with stddev_samp timestamptz \
     to_regclass to_tsvector ts_headline",
    "array_append array_length array_remove array_sample convert_from current_role current_time \
     current_user ishorizontal jsonb_exists jsonb_insert jsonb_object jsonb_pretty jsonb_typeof \
     justify_days num_nonnulls octet_length percent_rank regexp_count regexp_instr regexp_match \
     session_user to_timestamp tsmultirange txid_current width_bucket xmlserialize xpath_exists",
    "array_prepend array_replace array_reverse array_shuffle array_to_json current_query \
     date_subtract is_normalized json_arrayagg jsonb_set_lax justify_hours make_interval \
     nummultirange pg_size_bytes pg_table_size quote_literal random_normal regexp_substr \
     xmlattributes",
    "array_position current_schema datemultirange int4multirange int8multirange json_each_text \
     json_objectagg json_serialize json_to_record localtimestamp make_timestamp pg_backend_pid \
     pg_column_size pg_get_ruledef pg_get_viewdef pg_size_pretty quote_nullable regexp_matches \
     regexp_replace regr_intercept to_regoperator tsquery_phrase tstzmultirange",
    "array_positions array_to_string clock_timestamp col_description current_catalog \
     current_schemas current_setting gen_random_uuid generate_series json_agg_strict \
     json_object_agg jsonb_each_text jsonb_to_record obj_description percentile_cont \
     percentile_disc pg_get_indexdef pg_get_userbyid pg_indexes_size plainto_tsquery \
     string_to_array string_to_table to_regcollation to_regnamespace to_regprocedure",
    "character_length current_database inet_client_addr inet_client_port inet_same_family \
     inet_server_addr inet_server_port json_build_array json_object_keys json_strip_nulls \
     json_to_tsvector jsonb_agg_strict jsonb_exists_all jsonb_exists_any jsonb_object_agg \
     jsonb_path_match jsonb_path_query justify_interval macaddr8_set7bit make_timestamptz \
     pg_collation_for pg_database_size pg_relation_size phraseto_tsquery unicode_assigned",
    "array_to_tsvector current_timestamp json_array_length json_build_object json_extract_path \
     json_to_recordset jsonb_build_array jsonb_object_keys jsonb_path_exists jsonb_strip_nulls \
     jsonb_to_tsvector pg_get_partkeydef pg_get_triggerdef pg_is_in_recovery shobj_description \
     tsvector_to_array",
    "has_type_privilege jsonb_array_length jsonb_build_object jsonb_extract_path \
     jsonb_to_recordset pg_get_functiondef pg_type_is_visible xml_is_well_formed",
    "generate_subscripts has_table_privilege json_array_elements jsonb_path_match_tz \
     jsonb_path_query_tz pg_encoding_to_char pg_table_is_visible range_intersect_agg \
     row_security_active statement_timestamp",
    "has_column_privilege has_schema_privilege json_populate_record jsonb_array_elements \
     jsonb_path_exists_tz pg_get_constraintdef uuid_extract_version websearch_to_tsquery",
    "get_current_ts_config jsonb_populate_record pg_advisory_xact_lock regexp_split_to_array \
     regexp_split_to_table transaction_timestamp txid_current_snapshot",
    "has_database_privilege has_function_privilege has_sequence_privilege \
     json_extract_path_text json_object_agg_strict json_object_agg_unique \
     jsonb_path_query_array jsonb_path_query_first pg_function_is_visible \
     pg_get_function_result pg_get_serial_sequence pg_total_relation_size \
     uuid_extract_timestamp",
    "json_populate_recordset jsonb_extract_path_text jsonb_object_agg_strict \
     jsonb_object_agg_unique",
    "has_any_column_privilege json_array_elements_text jsonb_populate_recordset \
     pg_postmaster_start_time txid_current_if_assigned",
    "jsonb_array_elements_text jsonb_path_query_array_tz jsonb_path_query_first_tz \
     pg_get_function_arguments pg_try_advisory_xact_lock",
    "xml_is_well_formed_content",
    "xml_is_well_formed_document",
    "pg_advisory_xact_lock_shared",
    "",
    "pg_get_partition_constraintdef",
    "",
    "pg_try_advisory_xact_lock_shared",
    "",
    "pg_get_function_identity_arguments",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_is_found_so_the_lists_are_in_order_and_evenly_spaced() {
        for (table, found) in [
            (&CONSTRUCTS[..], is_construct as fn(&[u8]) -> bool),
            (&FUNCTIONS[..], is_harmless_function),
        ] {
            for (length, names) in table.iter().enumerate() {
                for name in names.split_terminator(' ') {
                    assert_eq!(name.len(), length);
                    assert!(found(name.as_bytes()), "{name}");
                }
            }
        }
    }

    #[test]
    fn what_changes_the_session_is_not_listed() {
        for name in ["set_config", "setseed", "lastval", "currval", "setval", "pg_advisory_lock"] {
            assert!(!is_harmless_function(name.as_bytes()), "{name}");
        }
        assert!(!is_harmless_function(b"") && !is_harmless_function(b"ab avg"));
    }
}
