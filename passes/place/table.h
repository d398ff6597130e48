/* table.h - embeddings, recurrences and heads that nobody named: which scales their INT8 rows get. */
#ifndef QX_PASSES_TABLE_H
#define QX_PASSES_TABLE_H

#include "passes/place/plan.h"

/* Of an item that a format has filled: blocks instead of one scale a row where outliers would leave the row few codes. */
qx_status qx_table_settle(qx_pass *p, qx_plan_item *it);

#endif
